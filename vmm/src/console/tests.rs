use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use super::*;

/// A process has one terminal in raw mode, but tests run at once.
fn one_terminal() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Both ends of a pseudoterminal: the user's and the program's.
fn pseudoterminal() -> (File, OwnedFd) {
    let (mut user, mut program) = (-1, -1);
    let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: openpty writes two descriptors, new and owned by nobody.
    unsafe {
        assert_eq!(libc::openpty(&mut user, &mut program, name, settings, size), 0);
        (File::from_raw_fd(user), OwnedFd::from_raw_fd(program))
    }
}

fn pipe() -> (File, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// (line editing, echo, output processing) of a terminal.
fn modes(fd: BorrowedFd<'_>) -> (bool, bool, bool) {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the structure when it returns 0.
    let settings = unsafe {
        assert_eq!(libc::tcgetattr(fd.as_raw_fd(), settings.as_mut_ptr()), 0);
        settings.assume_init()
    };
    let local = |flag| settings.c_lflag & flag != 0;
    (local(libc::ICANON), local(libc::ECHO), settings.c_oflag & libc::OPOST != 0)
}

const COOKED: (bool, bool, bool) = (true, true, true);
const RAW: (bool, bool, bool) = (false, false, true);

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: asks for flags only.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

fn set_nonblocking(fd: BorrowedFd<'_>) {
    // SAFETY: changes the flags of a descriptor that the test owns.
    unsafe { assert_eq!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK), 0) };
}

/// Waits, as the event loop would, until the descriptor is readable.
fn wait(fd: RawFd) {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    poll(&mut fds, -1).unwrap();
    assert_ne!(fds[0].revents, 0);
}

/// Everything up to the end of input, by an epoll loop.
fn read_to_end(mut input: Input, max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(fd) = input.watch_fd() {
        wait(fd);
        match input.on_readable(max) {
            ConsoleInput::Bytes(bytes) => {
                assert!(bytes.len() <= max);
                all.extend(bytes);
            }
            ConsoleInput::Eof => assert_eq!(input.watch_fd(), None),
            ConsoleInput::Quit => panic!("only a terminal has escape sequences"),
        }
    }
    assert_eq!(input.on_readable(max), ConsoleInput::Eof);
    all
}

#[test]
fn input_from_files_devices_and_pipes_ends() {
    let null = File::open("/dev/null").unwrap();
    assert_eq!(read_to_end(Input::new(null.into()).unwrap(), 16), b"");

    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    file.write_all(&content).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    assert_eq!(read_to_end(Input::new(file.into()).unwrap(), 64), content);

    let (reader, mut writer) = pipe();
    let input = Input::new(reader.into()).unwrap();
    // Ctrl-A x is for terminals.
    writer.write_all(b"echo \x01x\n").unwrap();
    drop(writer);
    assert_eq!(read_to_end(input, 3), b"echo \x01x\n");
}

#[test]
fn input_never_waits() {
    let (reader, writer) = pipe();
    let shared = reader.try_clone().unwrap();
    let mut input = Input::new(reader.into()).unwrap();
    assert_eq!(input.on_readable(16), ConsoleInput::Bytes(vec![]));
    assert_eq!(input.on_readable(0), ConsoleInput::Bytes(vec![]));
    assert!(!is_nonblocking(shared.as_fd()));
    drop(writer);
    assert_eq!(input.on_readable(16), ConsoleInput::Eof);
}

/// The event manager's epoll takes whatever is watched.
#[test]
fn epoll_takes_every_watched_descriptor() {
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
    let (reader, _writer) = pipe();
    let file = tempfile::tempfile().unwrap();
    for source in [reader, file, File::open("/dev/null").unwrap(), File::open("/dev/zero").unwrap()] {
        let input = Input::new(source.into()).unwrap();
        let fd = input.watch_fd().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0)).unwrap();
    }
}

#[test]
fn a_terminal_is_raw_until_the_input_is_dropped() {
    let _lock = one_terminal();
    let (mut user, program) = pseudoterminal();
    let observer = program.try_clone().unwrap();
    assert_eq!(modes(observer.as_fd()), COOKED);
    let mut input = Input::new(program).unwrap();
    assert_eq!(modes(observer.as_fd()), RAW);
    assert!(!is_nonblocking(observer.as_fd()));

    let mut typed = |keys: &[u8], input: &mut Input| {
        user.write_all(keys).unwrap();
        wait(input.watch_fd().unwrap());
        input.on_readable(64)
    };
    // Neither Enter, Ctrl-C, Ctrl-D, Ctrl-Z nor Ctrl-S is touched.
    let keys = b"ls\r\x03\x04\x1a\x13";
    assert_eq!(typed(keys, &mut input), ConsoleInput::Bytes(keys.to_vec()));
    assert_eq!(typed(b"\x01", &mut input), ConsoleInput::Bytes(vec![]));
    assert_eq!(typed(b"\x01", &mut input), ConsoleInput::Bytes(vec![1]));
    assert_eq!(typed(b"abc\x01x", &mut input), ConsoleInput::Quit);

    drop(input);
    assert_eq!(modes(observer.as_fd()), COOKED);
}

#[test]
fn restore_gives_the_settings_back_once() {
    let _lock = one_terminal();
    let (_user, program) = pseudoterminal();
    let observer = program.try_clone().unwrap();
    let input = Input::new(program).unwrap();
    // A second terminal is refused and left as it is.
    let (_second_user, second) = pseudoterminal();
    let second_observer = second.try_clone().unwrap();
    assert!(Input::new(second).is_err());
    assert_eq!(modes(second_observer.as_fd()), COOKED);

    restore();
    assert_eq!(modes(observer.as_fd()), COOKED);
    restore();
    drop(input);
    assert_eq!(modes(observer.as_fd()), COOKED);
}

#[test]
fn a_terminal_that_hangs_up_is_the_end() {
    let _lock = one_terminal();
    let (user, program) = pseudoterminal();
    let mut input = Input::new(program).unwrap();
    drop(user);
    wait(input.watch_fd().unwrap());
    assert_eq!(input.on_readable(16), ConsoleInput::Eof);
    assert_eq!(input.watch_fd(), None);
}

/// Named in the environment of the child processes below.
const ENDING: &str = "SLOTPASS_TEST_CONSOLE_ENDING";

/// Not a test of its own: what the child processes of the next test do.
#[test]
fn child_that_ends_with_a_raw_terminal() {
    let Ok(ending) = std::env::var(ENDING) else { return };
    let console = Console::stdio().unwrap();
    assert_eq!(modes(std::io::stdin().as_fd()), RAW);
    match ending.as_str() {
        "exit" => std::process::exit(7),
        "panic" => std::thread::spawn(|| panic!("on purpose")).join().unwrap_err(),
        other => panic!("{other}"),
    };
    // Restored by the panic, not by a destructor.
    assert_eq!(modes(std::io::stdin().as_fd()), COOKED);
    std::mem::forget(console);
    std::process::exit(7);
}

#[test]
fn exit_and_panic_restore_the_terminal() {
    for ending in ["exit", "panic"] {
        let (_user, program) = pseudoterminal();
        let observer = program.try_clone().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "console::tests::child_that_ends_with_a_raw_terminal", "--nocapture"])
            .env(ENDING, ending)
            .stdin(Stdio::from(program))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(7), "{ending}");
        assert_eq!(modes(observer.as_fd()), COOKED, "{ending}");
    }
}

#[test]
fn slow_readers_lose_nothing() {
    for nonblocking in [false, true] {
        let (mut reader, writer) = pipe();
        if nonblocking {
            set_nonblocking(writer.as_fd());
        }
        let mut output = Output::new(writer.into()).unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        let sent = content.clone();
        let sender = std::thread::spawn(move || {
            output.write_all(&sent).unwrap();
            assert!(!output.is_discarding());
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert!(received == content, "{nonblocking}");
    }
}

#[test]
fn output_without_reader_is_discarded() {
    let (reader, writer) = pipe();
    let mut output = Output::new(writer.into()).unwrap();
    output.write_all(b"read by nobody").unwrap();
    drop(reader);
    output.write_all(b"boot messages").unwrap();
    assert!(output.is_discarding());
    output.write_all(b"more").unwrap();
    output.flush().unwrap();

    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut output = Output::new(full.into()).unwrap();
    output.write_all(b"x").unwrap();
    assert!(output.is_discarding());
}

#[test]
fn stop_ends_waiting_for_a_reader() {
    let (reader, writer) = pipe();
    let mut output = Output::new(writer.into()).unwrap();
    let stop = output.stop_handle();
    // More than a pipe holds: without stop this never ends.
    let sender = std::thread::spawn(move || output.write_all(&vec![0; 1 << 20]).unwrap());
    wait(reader.as_raw_fd());
    stop.stop();
    sender.join().unwrap();
}
