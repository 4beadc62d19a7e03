use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a scenario failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the machine did not answer within {limit:?}; killed it")]
    NoAnswer { limit: Duration },
    #[error("the machine is gone (QEMU exited or its kernel panicked); see console.log and qemu.log")]
    Gone,
    #[error("the machine answered {answer:?} where {expected:?} was due")]
    Protocol { answer: String, expected: String },
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    #[error("{0}")]
    NotAsExpected(String),
    /// The scenario is skipped.
    #[error("{what} is not provisioned; guest-tests/{command} says why")]
    NotProvisioned { what: &'static str, command: &'static str },
}

impl Failure {
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Fails the scenario with a message unless the condition holds.
#[macro_export]
macro_rules! expect {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Failure::NotAsExpected(format!($($message)+)));
        }
    };
}
