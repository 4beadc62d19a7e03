//! A run that goes on.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Ended;

/// How long anything here may take before it counts as a hang; far more than it needs on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A process; killed if it is left alone, or hangs.
pub struct Running {
    child: Child,
    command: String,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    folder: Option<TempDir>,
}

/// What came out so far, and whether more can.
#[derive(Default)]
struct Collected {
    bytes: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

struct Stream {
    collected: Arc<Collected>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn new(mut source: impl Read + Send + 'static) -> Stream {
        let collected = Arc::new(Collected::default());
        let of_reader = collected.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = source.read(&mut buffer).unwrap_or(0);
                let mut bytes = of_reader.bytes.lock().unwrap();
                bytes.0.extend_from_slice(&buffer[..read]);
                bytes.1 = read == 0;
                of_reader.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Stream { collected, reader }
    }

    /// Whether this came before the end of the stream and in time.
    fn wait_for(&self, part: &str) -> bool {
        let seen = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(part);
        let bytes = self.collected.bytes.lock().unwrap();
        let waiting = |(bytes, ended): &mut (Vec<u8>, bool)| !*ended && !seen(bytes);
        let (bytes, _) = self.collected.changed.wait_timeout_while(bytes, LIMIT, waiting).unwrap();
        seen(&bytes.0)
    }
}

impl Running {
    pub(super) fn new(mut child: Child, command: String, folder: TempDir) -> Running {
        let stdout = child.stdout.take().map(Stream::new);
        let stderr = child.stderr.take().map(Stream::new);
        Running { child, command, stdout, stderr, folder: Some(folder) }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits until the guest has said this.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) {
        if !self.stdout.as_ref().unwrap().wait_for(part) {
            let ended = self.kill();
            panic!("waited in vain for {part:?}\n{ended}");
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a call without pointers; the process is a child that was not waited for, so the id is its own.
        let result = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(result, 0, "kill {}: {}", self.pid(), std::io::Error::last_os_error());
    }

    /// Waits for the end.
    #[track_caller]
    pub fn end(self) -> Ended {
        self.end_in_folder().0
    }

    #[track_caller]
    pub fn end_in_folder(mut self) -> (Ended, TempDir) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let ended = self.ended(status);
                return (ended, self.folder.take().unwrap());
            }
            if Instant::now() > deadline {
                let ended = self.kill();
                panic!("still ran after {LIMIT:?} and was killed\n{ended}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self) -> Ended {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        self.ended(status)
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        let text = |stream: Option<Stream>| {
            stream.map_or_else(String::new, |stream| {
                let Stream { collected, reader } = stream;
                reader.join().unwrap();
                String::from_utf8_lossy(&collected.bytes.lock().unwrap().0).into_owned()
            })
        };
        Ended {
            command: self.command.clone(),
            status,
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
        }
    }

    /// A file in the folder that it runs in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// Waits for something that shows outside of the run's output, and not longer than the run goes on.
    #[track_caller]
    pub fn wait_until(&mut self, seen: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !seen() {
            let gone = self.child.try_wait().unwrap().is_some();
            if gone || Instant::now() > deadline {
                let ended = self.kill();
                panic!("waited in vain\n{ended}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
