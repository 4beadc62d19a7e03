//! A run that is over.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What a run left behind.
pub struct Ended {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// For failure messages: everything there is to know.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { command, status, stdout, stderr } = self;
        write!(f, "{command}\nended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

impl Ended {
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ended {
        assert!(self.status.code() == Some(code), "expected exit code {code}\n{self}");
        self
    }

    #[track_caller]
    pub fn expect_signal(self, signal: i32) -> Ended {
        assert!(self.status.signal() == Some(signal), "expected death by signal {signal}\n{self}");
        self
    }

    #[track_caller]
    pub fn expect_stdout(self, part: &str) -> Ended {
        assert!(self.stdout.contains(part), "expected on stdout: {part:?}\n{self}");
        self
    }

    #[track_caller]
    pub fn expect_stderr(self, part: &str) -> Ended {
        assert!(self.stderr.contains(part), "expected on stderr: {part:?}\n{self}");
        self
    }

    #[track_caller]
    pub fn expect_silent_stderr(self) -> Ended {
        assert!(self.stderr.is_empty(), "expected nothing on stderr\n{self}");
        self
    }

    /// Exit code 1, nothing on stdout, and one message that has all these parts.
    #[track_caller]
    pub fn expect_refusal(self, parts: &[&str]) -> Ended {
        assert!(self.status.code() == Some(1), "expected exit code 1\n{self}");
        assert!(self.stdout.is_empty(), "expected nothing on stdout\n{self}");
        for part in parts {
            assert!(self.stderr.contains(part), "expected on stderr: {part:?}\n{self}");
        }
        assert!(!self.stderr.contains("panicked"), "expected a message, not a panic\n{self}");
        let messages =
            self.stderr.lines().filter(|l| l.starts_with("slotpass: ") || l.starts_with("error: ")).count();
        assert!(messages == 1, "expected one message, found {messages}\n{self}");
        self
    }
}
