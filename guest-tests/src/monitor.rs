//! QEMU's machine protocol, on the machine's monitor socket.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;

/// Commands are answered by a thread that waits for the emulated processor to pause.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Monitor {
    requests: UnixStream,
    lines: BufReader<UnixStream>,
    /// What arrived of a line before time was up.
    begun: String,
    events: Vec<Value>,
}

impl Monitor {
    /// `socket` is the name of a socket in `directory`.
    pub(crate) fn connect(directory: &Path, socket: &str) -> Result<Self, Failure> {
        // The path of a socket is limited to 108 bytes, so the directory is named by its file descriptor.
        let opened = File::open(directory).map_err(Failure::io("open", directory))?;
        let path = format!("/proc/self/fd/{}/{socket}", opened.as_raw_fd());
        let requests =
            UnixStream::connect(&path).map_err(Failure::io("connect to", directory.join(socket)))?;
        let lines = BufReader::new(requests.try_clone().map_err(|error| broken(&error))?);
        let mut monitor = Self { requests, lines, begun: String::new(), events: Vec::new() };
        let deadline = Instant::now() + ANSWER_LIMIT;
        while monitor.message(deadline)?.get("QMP").is_none() {}
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Carries out one command and returns what it returned.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.requests, "{request}").map_err(|error| broken(&error))?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let mut message = self.message(deadline)?;
            if let Some(returned) = message.get_mut("return") {
                return Ok(returned.take());
            }
            if let Some(error) = message.get("error") {
                return Err(Failure::Monitor(format!("{command}: {error}")));
            }
            self.events.push(message);
        }
    }

    /// Carries out a command of the monitor for people, which must have nothing to say.
    pub(crate) fn human(&mut self, command: &str) -> Result<(), Failure> {
        let said = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        match said.as_str().map(str::trim) {
            // Says where it did what it was told to.
            Some(text) if text.is_empty() || text.starts_with("OK ") => Ok(()),
            _ => Err(Failure::Monitor(format!("{command}: {said}"))),
        }
    }

    /// Waits for an event with this name and this device; one that came before counts.
    pub(crate) fn await_event(&mut self, name: &str, device: &str, limit: Duration) -> Result<(), Failure> {
        let wanted = |event: &Value| {
            event.get("event").is_some_and(|event| event == name)
                && event.pointer("/data/device").is_some_and(|id| id == device)
        };
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(wanted) {
                self.events.remove(at);
                return Ok(());
            }
            let message = self.message(deadline)?;
            self.events.push(message);
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Value, Failure> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.requests.set_read_timeout(Some(left)).map_err(|error| broken(&error))?;
        match self.lines.read_line(&mut self.begun) {
            Ok(0) => Err(Failure::Gone),
            Ok(_) => {
                let line = std::mem::take(&mut self.begun);
                serde_json::from_str(&line).map_err(|error| Failure::Monitor(format!("{error}: {line}")))
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                Err(Failure::Monitor("no answer, or not the event that is due".to_owned()))
            }
            Err(error) => Err(broken(&error)),
        }
    }
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::Monitor(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A QEMU that says these lines, each after a request but the first.
    fn monitor(says: &'static [&'static str]) -> (tempfile::TempDir, Monitor) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("m")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap());
            writeln!(stream, "{{\"QMP\": {{}}}}").unwrap();
            for line in [&"{\"return\": {}}"].into_iter().chain(says) {
                requests.read_line(&mut String::new()).unwrap();
                writeln!(stream, "{line}").unwrap();
            }
            requests.read_line(&mut String::new()).unwrap();
        });
        let monitor = Monitor::connect(directory.path(), "m").unwrap();
        (directory, monitor)
    }

    #[test]
    fn an_event_before_the_answer_is_kept() {
        let (_directory, mut monitor) = monitor(&[
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"a\"}}\n{\"return\": 7}",
            "{\"error\": {\"desc\": \"no\"}}",
            "{\"return\": \"Error: bus not found\"}",
            "{\"return\": \"\"}",
        ]);
        assert_eq!(monitor.execute("x", json!({})).unwrap(), 7);
        monitor.await_event("DEVICE_DELETED", "a", Duration::ZERO).unwrap();
        assert!(monitor.execute("x", json!({})).is_err());
        assert!(monitor.human("x").is_err());
        monitor.human("x").unwrap();
        assert!(monitor.await_event("DEVICE_DELETED", "a", Duration::ZERO).is_err());
    }
}
