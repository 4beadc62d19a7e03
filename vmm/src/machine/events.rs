//! What becomes of what a host tells of a function by itself: its errors, and that it wants it back.

use std::str::FromStr;
use std::time::Duration;

/// What is done about a function that failed (an uncorrectable error, PCIe 6.0 §6.2.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The guest is stopped: what it has from the function may be wrong.
    #[default]
    Stop,
    /// It is said, and the guest goes on.
    Log,
    /// The guest is told by the root port that the function is behind, as by hardware; on a root bus it is said.
    Pass,
}

/// What is done when the host wants a function back, and waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRequest {
    /// Behind a root port the guest is asked to let go, and the function is taken when this time is over; on a root bus
    /// it is taken at once.
    Ask(Duration),
    /// It is taken at once.
    Take,
    /// The guest is stopped.
    Stop,
}

impl Default for OnRequest {
    /// Linux takes five seconds and what its driver needs.
    fn default() -> OnRequest {
        OnRequest::Ask(Duration::from_secs(10))
    }
}

/// What is done about what hosts tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPolicy {
    /// About errors.
    pub error: OnError,
    /// About requests.
    pub request: OnRequest,
}

/// A text that says nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {known}")]
pub struct PolicyError {
    text: String,
    known: &'static str,
}

impl FromStr for OnError {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<OnError, PolicyError> {
        match text {
            "stop" => Ok(OnError::Stop),
            "log" => Ok(OnError::Log),
            "pass" => Ok(OnError::Pass),
            _ => Err(PolicyError { text: text.to_owned(), known: "stop, log or pass" }),
        }
    }
}

/// Seconds that a guest can be given at most.
const MOST_SECONDS: u64 = 24 * 60 * 60;

impl FromStr for OnRequest {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<OnRequest, PolicyError> {
        let seconds = |text: &str| text.parse().ok().filter(|seconds| *seconds <= MOST_SECONDS);
        match text.split_once(':') {
            None if text == "ask" => Ok(OnRequest::default()),
            None if text == "take" => Ok(OnRequest::Take),
            None if text == "stop" => Ok(OnRequest::Stop),
            Some(("ask", time)) if seconds(time).is_some() => {
                Ok(OnRequest::Ask(Duration::from_secs(seconds(time).unwrap_or_default())))
            }
            _ => Err(PolicyError {
                text: text.to_owned(),
                known: "ask, ask:SECONDS (up to a day), take or stop",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, want) in [
            ("stop", Some(OnError::Stop)),
            ("log", Some(OnError::Log)),
            ("pass", Some(OnError::Pass)),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
        let ask = |seconds| Some(OnRequest::Ask(Duration::from_secs(seconds)));
        for (text, want) in [
            ("ask", ask(10)),
            ("ask:0", ask(0)),
            ("ask:86400", ask(86400)),
            ("ask:86401", None),
            ("ask:", None),
            ("ask:-1", None),
            ("take", Some(OnRequest::Take)),
            ("take:1", None),
            ("stop", Some(OnRequest::Stop)),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
