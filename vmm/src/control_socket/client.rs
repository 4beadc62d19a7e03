//! The other end: how `slotpass ctl` talks to a machine.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::path::Folder;
use super::protocol::{Refusal, VERSION};

/// How long a machine takes to say hello, and to answer what needs no guest and no device.
const QUICK: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Why a machine could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("control socket {path}: {source}; is slotpass running there, with --control?")]
    Connect {
        /// The path.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The connection broke.
    #[error("control socket {path}: {source}")]
    Broken {
        /// The path.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// No answer in time.
    #[error("control socket {path}: no answer within {} seconds", .limit.as_secs_f32())]
    Silent {
        /// The path.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The machine ended before it answered.
    #[error("control socket {path}: the machine ended before it answered")]
    Ended {
        /// The path.
        path: PathBuf,
    },
    /// Not what this program understands.
    #[error("control socket {path}: speaks no protocol of version {VERSION}: {said}")]
    Protocol {
        /// The path.
        path: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// The machine said no.
    #[error(transparent)]
    Refused(Refusal),
}

/// A connection to a machine.
pub struct Client {
    path: PathBuf,
    lines: BufReader<UnixStream>,
    /// How long it takes to answer what needs no guest and no device.
    quick: Duration,
}

impl Client {
    /// Connects, and hears the greeting.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        Client::connect_within(path, QUICK)
    }

    /// The same of a machine that has only `quick`, more than nothing, for its greeting, and then for each answer.
    pub fn connect_within(path: &Path, quick: Duration) -> Result<Client, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let (folder, name) = Folder::of(path).map_err(failed)?;
        let stream = UnixStream::connect(folder.path(name)).map_err(failed)?;
        let mut client = Client { path: path.to_owned(), lines: BufReader::new(stream), quick };
        let greeting = client.hear(quick)?;
        match greeting.get("protocol").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => Ok(client),
            _ => Err(client.protocol(&greeting.into())),
        }
    }

    /// Asks, and gives the `result`. `patience` is how long the machine may take beyond what any answer takes.
    pub fn ask(&mut self, request: &Value, patience: Duration) -> Result<Value, ClientError> {
        let line = format!("{request}\n");
        // A machine that has said no already does not hear, but its answer can be read.
        let sent = self.lines.get_mut().write_all(line.as_bytes());
        let mut answer = match (self.hear(self.quick.saturating_add(patience)), sent) {
            (Err(ClientError::Ended { path } | ClientError::Broken { path, .. }), Err(source)) => {
                return Err(ClientError::Broken { path, source });
            }
            (answer, _) => answer?,
        };
        if let Some(result) = answer.remove("result") {
            return Ok(result);
        }
        match answer.remove("error").map(serde_json::from_value) {
            Some(Ok(refusal)) => Err(ClientError::Refused(refusal)),
            _ => Err(self.protocol(&answer.into())),
        }
    }

    fn protocol(&self, said: &Value) -> ClientError {
        let said = said.to_string().chars().take(200).collect();
        ClientError::Protocol { path: self.path.clone(), said }
    }

    fn hear(&mut self, limit: Duration) -> Result<Map<String, Value>, ClientError> {
        let path = || self.path.clone();
        let broken = |source: io::Error| match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent { path: path(), limit },
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ClientError::Ended { path: path() },
            _ => ClientError::Broken { path: path(), source },
        };
        self.lines.get_ref().set_read_timeout(Some(limit)).map_err(broken)?;
        let mut line = Vec::new();
        self.lines.by_ref().take(LONGEST_ANSWER).read_until(b'\n', &mut line).map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Ended { path: path() });
        }
        serde_json::from_slice(&line)
            .map_err(|_| self.protocol(&Value::String(String::from_utf8_lossy(&line).trim_end().to_owned())))
    }
}
