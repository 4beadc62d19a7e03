//! Which root ports a guest has beside those that its slots ask for, and how much room they have.

use std::str::FromStr;

use devices::pci::PortBuses;
use devices::pci::windows::PortRoom;

use crate::memory::parse_size;

/// Unit of a port's windows.
const UNIT: u64 = 1 << 20;

/// What is asked for of root ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// Buses that have a port, whether a function is behind it at the start or not.
    pub empty: Vec<u8>,
    /// Room of each port.
    pub window: PortWindow,
}

/// Room that each root port has at least for the BARs behind it, as `MEMORY,PREFETCHABLE`; multiples of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortWindow {
    /// Bytes below 4 GiB.
    memory: u64,
    /// Bytes of prefetchable memory, above 4 GiB.
    prefetchable: u64,
}

impl Default for PortWindow {
    /// 64 MiB and 1 GiB.
    fn default() -> PortWindow {
        PortWindow { memory: 64 << 20, prefetchable: 1 << 30 }
    }
}

impl PortWindow {
    /// No more than the functions need that are there at the start.
    pub const NONE: PortWindow = PortWindow { memory: 0, prefetchable: 0 };

    /// The room of each port.
    pub fn rooms(self, ports: PortBuses) -> Vec<PortRoom> {
        let PortWindow { memory, prefetchable } = self;
        ports.iter().map(|bus| PortRoom { bus, memory, prefetchable }).collect()
    }
}

/// A text that says no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not the room of a root port: give memory below 4 GiB and prefetchable memory, multiples of 1M, such as 64M,1G"
)]
pub struct PortWindowError(String);

impl FromStr for PortWindow {
    type Err = PortWindowError;

    fn from_str(text: &str) -> Result<PortWindow, PortWindowError> {
        let size = |text: &str| parse_size(text).ok().filter(|size| size.is_multiple_of(UNIT));
        let window = text
            .split_once(',')
            .and_then(|(memory, prefetchable)| Some((size(memory)?, size(prefetchable)?)))
            // Below 4 GiB there is never more than that.
            .filter(|(memory, prefetchable)| *memory < 1 << 32 && *prefetchable <= 1 << 46);
        let (memory, prefetchable) = window.ok_or_else(|| PortWindowError(text.to_owned()))?;
        Ok(PortWindow { memory, prefetchable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms() {
        let window = |memory, prefetchable| Some(PortWindow { memory, prefetchable });
        for (text, want) in [
            ("64M,1G", window(64 << 20, 1 << 30)),
            ("0,0", window(0, 0)),
            ("16MiB,32g", window(16 << 20, 32 << 30)),
            ("64M", None),
            ("64M,1G,1G", None),
            ("512K,1G", None),
            (",", None),
            ("4G,1G", None),
            ("1M,128T", None),
            ("1M,-1", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
        assert_eq!("64M,1G".parse(), Ok(PortWindow::default()));
        let rooms = PortWindow::default().rooms(PortBuses::from_iter([2, 5]));
        assert_eq!(
            rooms.iter().map(|room| (room.bus, room.memory)).collect::<Vec<_>>(),
            [(2, 64 << 20), (5, 64 << 20)]
        );
    }
}
