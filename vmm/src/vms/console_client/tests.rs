use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::Timespec;

use super::*;

/// A client at a console, and the ends of everything that it has.
struct Attached {
    vm: UnixStream,
    stdin: PipeWriter,
    stdout: PipeReader,
    /// The client's end of its stdout.
    written: File,
    signal: PipeWriter,
    client: JoinHandle<Result<Left, ConsoleError>>,
}

fn attached() -> Attached {
    let (vm, stream) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (input, stdin) = pipe().unwrap();
    let (stdout, output) = pipe().unwrap();
    let (signals, signal) = pipe().unwrap();
    let written = File::from(OwnedFd::from(output));
    let output = written.try_clone().unwrap();
    let client = thread::spawn(move || {
        let own = Input::with_help(input.try_clone().unwrap().into(), "").unwrap();
        Client::new(stream, own, output).run(input.as_fd(), signals.as_fd())
    });
    Attached { vm, stdin, stdout, written, signal, client }
}

impl Attached {
    fn is_full(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.written.as_fd(), PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
    }

    /// The VM says so much that nobody on the way takes more. Gives all of it.
    fn fill(&mut self) -> Vec<u8> {
        self.vm.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        let mut refusals = 0;
        while refusals < 20 {
            let line = format!("{:99}\n", said.len());
            match self.vm.write(line.as_bytes()) {
                Ok(length) => {
                    said.extend_from_slice(&line.as_bytes()[..length]);
                    refusals = 0;
                }
                Err(_) => {
                    refusals += usize::from(self.is_full());
                    thread::sleep(Duration::from_millis(5));
                }
            }
            assert!(said.len() < 16 << 20, "nobody takes so much");
        }
        self.vm.set_nonblocking(false).unwrap();
        said
    }
}

#[test]
fn a_signal_ends_it_while_nobody_reads() {
    let mut attached = attached();
    attached.fill();
    attached.signal.write_all(b"x").unwrap();
    assert_eq!(attached.client.join().unwrap().unwrap(), Left::Signal);
}

#[test]
fn what_is_typed_reaches_the_vm_while_nobody_reads() {
    let mut attached = attached();
    attached.fill();
    attached.stdin.write_all(b"typed\r").unwrap();
    let mut typed = [0; 6];
    attached.vm.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"typed\r");
    drop(attached.stdout);
    drop(attached.written);
    assert_eq!(attached.client.join().unwrap().unwrap(), Left::User);
}

#[test]
fn who_reads_late_reads_all_of_it_also_after_the_vm_has_ended() {
    let mut attached = attached();
    let said = attached.fill();
    drop(attached.vm);
    drop(attached.written);
    let mut read = Vec::new();
    attached.stdout.read_to_end(&mut read).unwrap();
    assert!(read == said, "{} of {} bytes", read.len(), said.len());
    assert_eq!(attached.client.join().unwrap().unwrap(), Left::Vm);
}
