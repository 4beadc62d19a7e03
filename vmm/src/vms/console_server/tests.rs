use std::fs;
use std::path::PathBuf;

use super::*;
use crate::vms::rotating_file;

struct Served {
    server: ConsoleServer,
    guest: UnixStream,
    folder: tempfile::TempDir,
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let socket = SocketFile::make(&folder.path().join("console.sock")).unwrap();
    let log = RotatingFile::open(&folder.path().join("console.log"), rotating_file::LIMIT).unwrap();
    let (server, guest) = ConsoleServer::start(socket, log).unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    guest.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    Served { server, guest, folder }
}

impl Served {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(self.path("console.sock")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client
    }
}

#[track_caller]
fn expect(stream: &mut UnixStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[test]
fn everybody_sees_what_was_said_before_and_what_is_said_now() {
    let mut served = served();
    let mut first = served.connect();
    served.guest.write_all(b"one\n").unwrap();
    expect(&mut first, "one\n");
    let mut second = served.connect();
    expect(&mut second, "one\n");
    served.guest.write_all(b"two\n").unwrap();
    for client in [&mut first, &mut second] {
        expect(client, "two\n");
        client.write_all(b"typed\r").unwrap();
        expect(&mut served.guest, "typed\r");
    }
    // One that says no more still listens.
    first.shutdown(Shutdown::Write).unwrap();
    drop(second);
    served.guest.write_all(b"last\n").unwrap();
    served.server.end();
    let mut rest = String::new();
    first.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "last\n");
    assert_eq!(fs::read_to_string(served.folder.path().join("console.log")).unwrap(), "one\ntwo\nlast\n");
    assert!(!served.folder.path().join("console.sock").exists());
}

#[test]
fn a_client_that_reads_nothing_holds_up_nobody_and_is_told_what_it_lost() {
    let mut served = served();
    let mut stuck = served.connect();
    let mut other = served.connect();
    let line = format!("{}\n", "x".repeat(999));
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        all.len()
    });
    for _ in 0..3000 {
        served.guest.write_all(line.as_bytes()).unwrap();
    }
    // The log has it all, in two files; the other client may be slower than the guest as well.
    served.server.end();
    assert!(reader.join().unwrap() >= line.len());
    let mut got = Vec::new();
    stuck.read_to_end(&mut got).unwrap();
    assert!(got.len() < 3_000_000, "{}", got.len());
    let log = served.folder.path().join("console.log");
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    assert!(size(log.clone()) + size(rotating_file::old(&log)) <= 2 * rotating_file::LIMIT);
    assert!(fs::read(log).unwrap().ends_with(line.as_bytes()));
}

#[test]
fn a_client_that_reads_again_is_told_how_much_it_lost_and_loses_nothing_more() {
    let mut served = served();
    let mut stuck = served.connect();
    let mut other = served.connect();
    let line = format!("{}\n", "x".repeat(999));
    let mut said = 0;
    for _ in 0..2000 {
        served.guest.write_all(line.as_bytes()).unwrap();
        // By then it was there for all of them.
        expect(&mut other, &line);
        said += line.len();
    }
    let (begin, end) = ("\r\nslotpass: ", " bytes of output were left out here\r\n");
    let mut got = Vec::new();
    while !got.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stuck.read_exact(&mut byte).unwrap();
        got.extend(byte);
    }
    let got = String::from_utf8(got).unwrap();
    let (before, note) = got.split_once(begin).unwrap();
    let lost: usize = note.strip_suffix(end).unwrap().parse().unwrap();
    assert!(lost > 0 && before.chars().all(|c| c == 'x' || c == '\n'), "{lost}");
    assert_eq!(before.len() + lost, said);
    served.guest.write_all(b"and now\n").unwrap();
    expect(&mut stuck, "and now\n");
    served.server.end();
}

#[test]
fn a_guest_that_reads_nothing_takes_nobody_else_s_output() {
    let mut served = served();
    let mut client = served.connect();
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until neither the guest nor anybody on the way takes more.
    let mut refusals = 0;
    while refusals < 20 {
        match client.write(&[b'z'; 4096]) {
            Ok(length) => (sent, refusals) = (sent + length, 0),
            Err(_) => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(sent < 16 << 20, "nobody takes so much");
    }
    client.set_nonblocking(false).unwrap();
    served.guest.write_all(b"still here\n").unwrap();
    expect(&mut client, "still here\n");
    let mut late = served.connect();
    expect(&mut late, "still here\n");
    served.server.end();
}

#[test]
fn there_are_so_many_clients_and_no_more() {
    let served = served();
    let clients: Vec<UnixStream> = (0..MOST_CLIENTS).map(|_| served.connect()).collect();
    let mut refused = String::new();
    served.connect().read_to_string(&mut refused).unwrap();
    assert!(refused.contains("16 others"), "{refused}");
    drop(clients);
    served.server.end();
}

#[test]
fn a_new_client_is_shown_whole_lines() {
    let mut served = served();
    let mut first = served.connect();
    let line = format!("{}\n", "y".repeat(99));
    let all = line.repeat(500);
    served.guest.write_all(all.as_bytes()).unwrap();
    expect(&mut first, &all);
    let mut late = served.connect();
    served.server.end();
    let mut shown = String::new();
    late.read_to_string(&mut shown).unwrap();
    assert!(
        shown.starts_with('y') && shown.len() <= RECENT && shown.len().is_multiple_of(100),
        "{}",
        shown.len()
    );
}
