//! What is measured, and what of the floor each figure stands beside.

use std::fmt;
use std::str::FromStr;

/// A measurement.
#[derive(Debug)]
pub struct Row {
    /// As `--only` has it, and the guest if it makes it.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// What it is at least, measured by the guest under the bare loop: the sum of these. Nothing where the bare loop has
    /// nothing like it.
    pub floor: &'static [&'static str],
}

const fn row(name: &'static str, what: &'static str, floor: &'static [&'static str]) -> Row {
    Row { name, what, floor }
}

/// Made by the guest itself (`guest::BENCH`), in this order.
pub const ROWS: [Row; 25] = [
    row("empty", "nothing, as around an access to memory", &["empty"]),
    row("empty-port", "nothing, as around an access to ports", &["empty-port"]),
    row("pio-read", "read of a port that nobody claims", &["pio-read"]),
    row("pio-write", "write of a port that nobody claims", &["pio-write"]),
    row("mmio-read", "read of an address that nobody claims", &["mmio-read"]),
    row("mmio-write", "write of an address that nobody claims", &["mmio-write"]),
    row("cf8-write-address", "write of port 0xCF8", &["coalesced-write"]),
    row("cf8-read", "vendor id by ports 0xCF8 and 0xCFC", &["coalesced-write", "pio-read"]),
    row("cf8-read-absent", "vendor id of an empty slot by the same ports", &["coalesced-write", "pio-read"]),
    row(
        "cf8-write",
        "register 0x3C, with what it holds, by ports 0xCF8 and 0xCFC",
        &["coalesced-write", "pio-write"],
    ),
    row("ecam-read", "vendor id by ECAM", &["mmio-read"]),
    row("ecam-read-absent", "vendor id of an empty slot by ECAM", &["ro-read"]),
    row(
        "ecam-read-live",
        "command and status, of which the device knows the latter, by ECAM",
        &["mmio-read"],
    ),
    row("ecam-write", "register 0x3C, with what it holds, by ECAM", &["mmio-write"]),
    row("bar-read", "read of a BAR where it is mapped", &["ro-read"]),
    row("trapped-read", "read of a register that is trapped", &["mmio-read"]),
    row("trapped-write", "write of such a register", &["mmio-write"]),
    row("msix-read", "read of the MSI-X table", &["ro-read"]),
    row("pba-read", "read of MSI-X' pending bits", &["ro-read"]),
    row("msix-write-same", "write to the MSI-X table that changes nothing", &["ro-write"]),
    row("msix-mask-unmask", "an armed MSI-X vector masked and unmasked", &["ro-write", "ro-write"]),
    row("doorbell", "a write that only signals, while its interrupt is held back", &["ioeventfd-write"]),
    row(
        "interrupt",
        "from the write that raises an interrupt to its handler's first instruction",
        &["irqfd"],
    ),
    row("enable-at-once", "MSI-X vectors made live together, under the function mask", &[]),
    row("enable-one-by-one", "MSI-X vectors made live one after the other, as Linux does", &[]),
];

/// Measurements that the host makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByHost {
    /// The start of a guest that speaks at once.
    Start,
    /// The start of a kernel that somebody names.
    StartKernel,
    /// The map of guest memory for DMA.
    DmaMap,
}

/// Made by the host, in this order, after those of the guest.
pub const HOST_ROWS: [Row; 3] = [
    row("start", "from the start of the program to the first byte at the guest's serial port", &[]),
    row("start-kernel", "the same of the kernel that was given, or to the text that was given", &[]),
    row("dma-map", "VFIO's map of 1 GiB of guest memory whose pages are there", &[]),
];

impl ByHost {
    const ALL: [ByHost; 3] = [ByHost::Start, ByHost::StartKernel, ByHost::DmaMap];

    /// As `--only` has it.
    pub fn name(self) -> &'static str {
        let [start, kernel, map] = &HOST_ROWS;
        match self {
            ByHost::Start => start.name,
            ByHost::StartKernel => kernel.name,
            ByHost::DmaMap => map.name,
        }
    }
}

/// The row of that name, behind which may be `=` and a value.
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().chain(&HOST_ROWS).find(|row| name.split('=').next() == Some(row.name))
}

/// Where [`ROWS`] come to what is the function's own: its BARs, its interrupts, and what it takes to give it to a guest.
const FIRST_OF_FUNCTION: &str = "bar-read";

/// Whether the figures of this row are other ones with another function. What there is no row of is taken for such.
pub fn is_of_function(name: &str) -> bool {
    let mut before = ROWS.iter().take_while(|row| row.name != FIRST_OF_FUNCTION);
    !before.any(|row| name.split('=').next() == Some(row.name))
}

/// A measurement that somebody asks for: a word for the guest, or one that the host makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(String);

/// A text that names no measurement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no measurement '{0}'; there are: {names}; behind = some take a value, as enable-at-once=64 or bar-read=0:16",
    names = ROWS.iter().chain(&HOST_ROWS).map(|row| row.name).collect::<Vec<_>>().join(", ")
)]
pub struct ChosenError(String);

impl FromStr for Chosen {
    type Err = ChosenError;

    fn from_str(text: &str) -> Result<Chosen, ChosenError> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let is_plain = value.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == ':');
        let takes_value = HOST_ROWS.iter().all(|row| row.name != name);
        match find(name) {
            Some(_) if is_plain && (takes_value || text == name) => Ok(Chosen(text.to_owned())),
            _ => Err(ChosenError(text.to_owned())),
        }
    }
}

impl From<&Row> for Chosen {
    fn from(row: &Row) -> Chosen {
        Chosen(row.name.to_owned())
    }
}

impl From<ByHost> for Chosen {
    fn from(row: ByHost) -> Chosen {
        Chosen(row.name().to_owned())
    }
}

impl Chosen {
    /// The host makes it.
    pub fn by_host(&self) -> Option<ByHost> {
        ByHost::ALL.into_iter().find(|row| row.name() == self.0)
    }

    /// It is the row of that name.
    pub fn is_row(&self, name: &str) -> bool {
        self.0.split('=').next() == Some(name)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_by_name_and_value() {
        for text in ["empty", "enable-at-once=64", "bar-read=0:0x10", "start", "start-kernel", "dma-map"] {
            assert_eq!(text.parse::<Chosen>().unwrap().to_string(), text);
        }
        for text in ["", "emtpy", "slot=8", "bar-read=0:16 slot=9", "start=1", "dma-map=", "empty="] {
            let parsed = text.parse::<Chosen>();
            assert_eq!(parsed.is_ok(), text == "empty=", "{text}: {parsed:?}");
        }
        let error = "x".parse::<Chosen>().unwrap_err().to_string();
        assert!(error.starts_with("there is no measurement 'x'; there are: empty, empty-port, "), "{error}");
    }
}
