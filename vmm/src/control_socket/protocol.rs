//! What is said on a control socket: one JSON object a line, in both directions.

use std::time::Duration;

use passthru::pci::Slot;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

use crate::memory::RamSize;
use crate::slot_map::Assignment;

/// Version of the protocol, which grows when something that was there changes its meaning or goes.
pub const VERSION: u32 = 1;
/// Bytes of a request's line at most, its end not counted.
pub const LONGEST_LINE: usize = 64 << 10;
/// Bytes of a request's id at most, when it is a text.
const LONGEST_ID: usize = 64;
/// Characters at most of what is said about a line that is no request.
const LONGEST_MESSAGE: usize = 500;
/// How long a removal waits for the guest unless it is told: Linux takes five seconds and what its driver needs.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long it can be told to wait.
const MOST_PATIENCE: u64 = 24 * 60 * 60;

/// What names a request in its answer: whatever the client chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number from 0.
    Number(u64),
    /// A text of up to 64 bytes.
    Text(String),
}

/// What a machine is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Which functions and ports there are.
    List {},
    /// How the machine is.
    Status {},
    /// Presses the power button.
    PowerButton {},
    /// Plugs in all functions of one device.
    Add {
        /// What goes where, as `--slot` has it: `1:0:0=0000:01:00.0`.
        #[serde(deserialize_with = "assignments")]
        functions: Vec<Assignment>,
    },
    /// Takes all functions of one device away.
    Remove {
        /// Where they are.
        #[serde(deserialize_with = "slots")]
        slots: Vec<Slot>,
        /// Without asking the guest.
        #[serde(default)]
        force: bool,
        /// Seconds that the guest has to let go.
        #[serde(default = "patience", deserialize_with = "seconds")]
        timeout: Duration,
    },
}

fn patience() -> Duration {
    PATIENCE
}

/// Functions of a device at most.
const MOST: usize = 8;

fn texts<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() || texts.len() > MOST {
        return Err(de::Error::custom(format_args!("{} functions: a device has 1 to {MOST}", texts.len())));
    }
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

fn assignments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Assignment>, D::Error> {
    texts(deserializer)
}

fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Slot>, D::Error> {
    texts(deserializer)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u64::deserialize(deserializer)? {
        seconds if seconds <= MOST_PATIENCE => Ok(Duration::from_secs(seconds)),
        _ => Err(de::Error::custom(format_args!("more than {MOST_PATIENCE} seconds"))),
    }
}

/// A line that was understood, or not: then the id is there if that was.
pub type Heard = (Option<Id>, Result<Command, Refusal>);

/// Reads a request's line.
pub fn read(line: &[u8]) -> Heard {
    // It may repeat what the client wrote.
    let refuse = |error: serde_json::Error| {
        let message = error.to_string().chars().take(LONGEST_MESSAGE).collect::<String>();
        Refusal::new(RefusalKind::Syntax, message)
    };
    let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(error) => return (None, Err(refuse(error))),
    };
    let id = match fields.remove("id") {
        None | Some(Value::Null) => None,
        Some(id) => match Id::deserialize(id) {
            Ok(Id::Text(text)) if text.len() > LONGEST_ID => {
                let what = format!("an id of more than {LONGEST_ID} bytes");
                return (None, Err(Refusal::new(RefusalKind::Syntax, what)));
            }
            Ok(id) => Some(id),
            Err(_) => {
                let what = "an id that is neither a number from 0 nor a text".to_owned();
                return (None, Err(Refusal::new(RefusalKind::Syntax, what)));
            }
        },
    };
    (id, Command::deserialize(Value::Object(fields)).map_err(refuse))
}

/// Why something was not done, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The line is no request.
    Syntax,
    /// The line is too long; the connection ends.
    TooLong,
    /// More clients than there can be; the connection ends.
    TooManyClients,
    /// Nothing can come or go there while the guest runs.
    NoHotplug,
    /// Something is in that slot.
    Occupied,
    /// Nothing is in that slot.
    Empty,
    /// Only some of a device's functions.
    Partial,
    /// Something else is being done there.
    Busy,
    /// The device cannot be used, or does not fit.
    Device,
    /// The guest did not let go in time.
    Timeout,
    /// The machine ends.
    Ended,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// With these words.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Of [`Command::List`].
    List(Listing),
    /// Of [`Command::Status`].
    Status(Status),
    /// Of [`Command::PowerButton`].
    Pressed {
        /// The guest has asked to be told of that.
        heard: bool,
    },
    /// Of [`Command::Add`].
    Added {
        /// What came.
        added: Vec<Listed>,
    },
    /// Of [`Command::Remove`].
    Removed {
        /// What went.
        removed: Vec<Listed>,
        /// The guest was not asked, or did not answer in time.
        by_force: bool,
    },
}

/// What a machine's slots hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The functions, by slot.
    pub functions: Vec<Listed>,
    /// The root ports, by bus.
    pub ports: Vec<ListedPort>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where the guest has it.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub slot: Slot,
    /// What the host calls it.
    pub device: String,
}

/// A root port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPort {
    /// The bus behind it.
    pub bus: u8,
    /// What goes on there.
    pub state: PortState,
}

/// What goes on at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Nothing is in its slot.
    Empty,
    /// Functions are being opened and reset.
    Adding,
    /// Functions are there and have power.
    On,
    /// Functions are there, and the guest has turned their power off, or not yet on.
    Off,
    /// The guest was asked to let go.
    Removing,
    /// Functions are being reset and closed.
    Closing,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// slotpass' version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Functions in slots.
    pub functions: usize,
    /// Root ports.
    pub ports: usize,
    /// Resets by the guest so far.
    pub resets: u64,
}

impl Status {
    /// Of a machine with these processors and this memory, as it starts.
    pub fn of(cpus: u32, memory: RamSize) -> Status {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let memory = memory.bytes();
        Status { version, pid: std::process::id(), cpus, memory, functions: 0, ports: 0, resets: 0 }
    }
}

fn as_text<S: Serializer>(slot: &Slot, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(slot)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Slot, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// What a server says first, with the line's end.
pub fn greeting() -> String {
    line(&json!({ "slotpass": env!("CARGO_PKG_VERSION"), "protocol": VERSION }))
}

/// An answer's line, with its end. Without an id it answers what had none, or could not be read.
pub fn answer(id: Option<&Id>, outcome: &Result<Outcome, Refusal>) -> String {
    line(&match outcome {
        Ok(outcome) => json!({ "id": id, "result": outcome }),
        Err(refusal) => json!({ "id": id, "error": refusal }),
    })
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(text: &str) -> Slot {
        text.parse().unwrap()
    }

    #[test]
    fn requests() {
        let remove = |slots: &[&str], force, seconds| Command::Remove {
            slots: slots.iter().map(|text| slot(text)).collect(),
            force,
            timeout: Duration::from_secs(seconds),
        };
        let add = |texts: &[&str]| Command::Add {
            functions: texts.iter().map(|text| text.parse().unwrap()).collect(),
        };
        for (line, id, command) in [
            (r#"{"command":"list"}"#, None, Command::List {}),
            (r#"{"command":"status","id":7}"#, Some(Id::Number(7)), Command::Status {}),
            (r#" { "id" : null , "command" : "list" } "#, None, Command::List {}),
            (
                r#"{"id":"x","command":"add","functions":["1:0:0=0000:01:00.0"]}"#,
                Some(Id::Text("x".to_owned())),
                add(&["1:0:0=0000:01:00.0"]),
            ),
            (
                r#"{"command":"add","functions":["1:0:0=sim:demo,port","1:0:1=sim:demo"]}"#,
                None,
                add(&["1:0:0=sim:demo,port", "1:0:1=sim:demo"]),
            ),
            (r#"{"command":"remove","slots":["1:0:0"]}"#, None, remove(&["1:0:0"], false, 30)),
            (
                r#"{"command":"remove","slots":["1:0:0","1:0:1"],"force":true,"timeout":0}"#,
                None,
                remove(&["1:0:0", "1:0:1"], true, 0),
            ),
        ] {
            assert_eq!(read(line.as_bytes()), (id, Ok(command)), "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_requests() {
        let long = format!(r#"{{"id":"{}","command":"list"}}"#, "x".repeat(65));
        let deep = format!(r#"{{"command":{}"#, "[".repeat(200));
        let many = format!(r#"{{"command":"remove","slots":[{}]}}"#, ["\"1:0:0\""; 9].join(","));
        for (line, id, part) in [
            ("", None, "EOF"),
            ("list", None, "expected value"),
            ("[]", None, "expected a map"),
            ("{}", None, "missing field `command`"),
            (r#"{"command":"list"} {}"#, None, "trailing"),
            (r#"{"id":3,"command":"dance"}"#, Some(3), "unknown variant `dance`"),
            (r#"{"id":3,"command":"list","slots":[]}"#, Some(3), "unknown field `slots`"),
            (r#"{"id":-1,"command":"list"}"#, None, "neither a number from 0 nor a text"),
            (r#"{"id":[],"command":"list"}"#, None, "neither a number from 0 nor a text"),
            (&long, None, "more than 64 bytes"),
            (r#"{"id":3,"command":"add"}"#, Some(3), "missing field `functions`"),
            (r#"{"id":3,"command":"add","functions":[]}"#, Some(3), "1 to 8"),
            (r#"{"id":3,"command":"add","functions":["1:0:0"]}"#, Some(3), "SLOT=DEVICE"),
            (r#"{"id":3,"command":"remove","slots":["1:0:9"]}"#, Some(3), "function 9"),
            (&many, None, "1 to 8"),
            (r#"{"id":3,"command":"remove","slots":["1"],"timeout":-1}"#, Some(3), "-1"),
            (r#"{"id":3,"command":"remove","slots":["1"],"timeout":90000}"#, Some(3), "86400 seconds"),
            (&deep, None, "recursion limit"),
        ] {
            let (found, command) = read(line.as_bytes());
            let refusal = command.unwrap_err();
            assert!(refusal.message.contains(part), "{line}: {refusal}");
            assert_eq!((found, refusal.kind), (id.map(Id::Number), RefusalKind::Syntax), "{line}");
        }
        assert_eq!(read(b"\xff\xfe").1.unwrap_err().kind, RefusalKind::Syntax);
    }

    #[test]
    fn answers_are_single_lines() {
        let listed = vec![Listed { slot: slot("1:0:0"), device: "0000:01:00.0".to_owned() }];
        let ports = vec![ListedPort { bus: 1, state: PortState::On }];
        let refusal = Refusal::new(RefusalKind::NoHotplug, "two\nlines");
        for (outcome, want) in [
            (
                Ok(Outcome::List(Listing { functions: listed.clone(), ports })),
                r#"{"id":4,"result":{"functions":[{"device":"0000:01:00.0","slot":"1:0:0"}],"ports":[{"bus":1,"state":"on"}]}}"#,
            ),
            (
                Ok(Outcome::Removed { removed: listed, by_force: true }),
                r#"{"id":4,"result":{"by_force":true,"removed":[{"device":"0000:01:00.0","slot":"1:0:0"}]}}"#,
            ),
            (Err(refusal), r#"{"error":{"kind":"no-hotplug","message":"two\nlines"},"id":4}"#),
        ] {
            assert_eq!(answer(Some(&Id::Number(4)), &outcome), format!("{want}\n"));
        }
        assert!(greeting().starts_with(r#"{"protocol":1,"#) && greeting().ends_with("\"}\n"));
    }
}
