//! What of a guest's machine differs from guest to guest.

use std::fmt;
use std::ops::Range;

use crate::layout;

/// The parts of the machine that the tables describe; ports, ECAM and interrupt controllers are those of
/// [`crate::layout`].
#[derive(Debug)]
pub struct Platform<'a> {
    /// Processors, from 1 on. Processor n has local APIC id n.
    pub cpus: u32,
    /// A host bridge for each bus that is there.
    pub host_bridges: &'a [HostBridge],
    /// The I/O APIC pin (GSI) to which an INTx pin of a device is wired.
    pub gsi: fn(IntxPin) -> u32,
}

/// One PCI host bridge: the root of one bus, and of those behind root ports on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBridge {
    /// Its bus.
    pub bus: u8,
    /// The last bus behind root ports on its bus; nothing where there are none. All buses up to there are its.
    pub last_behind_ports: Option<u8>,
    /// Ports it forwards to that bus, each range non-empty and within [`layout::WINDOW_IO`].
    pub io: Vec<Range<u64>>,
    /// Guest-physical addresses it forwards, each range non-empty and below or above 4 GiB.
    pub memory: Vec<Range<u64>>,
}

/// An INTx pin of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntxPin {
    pub bus: u8,
    /// 0 to 31.
    pub device: u8,
    /// 0 to 3 for INTA to INTD.
    pub pin: u8,
}

/// Why there are no tables for a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("ACPI tables: a guest has 1 to {} processors, not {given}", Platform::CPUS_MAX)]
    Cpus { given: u32 },
    #[error("ACPI tables: bus {0:#04x} has two host bridges, or lies in the range of another one")]
    DuplicateBus(u8),
    #[error("ACPI tables: the host bridge of bus {bus:#04x} cannot have the {kind} window {:#x} to {:#x}", .range.start, .range.end.saturating_sub(1))]
    Window { bus: u8, kind: WindowKind, range: Range<u64> },
    #[error("ACPI tables: INT{} of device {:02x}:{:02x} is wired to GSI {gsi}; the I/O APIC has 0 to {}", char::from(b'A' + .pin.pin % 4), .pin.bus, .pin.device, layout::IO_APIC_PINS - 1)]
    Gsi { pin: IntxPin, gsi: u32 },
    #[error(
        "ACPI tables: {size} bytes do not fit into their {room}; give the guest fewer processors or buses"
    )]
    TooLarge { size: u64, room: u64 },
}

/// What a window forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Io,
    Memory,
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WindowKind::Io => "I/O",
            WindowKind::Memory => "memory",
        })
    }
}

impl Platform<'_> {
    /// Most processors: KVM's limit on x86.
    pub const CPUS_MAX: u32 = 4096;

    /// Fails unless the tables can say it.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !(1..=Self::CPUS_MAX).contains(&self.cpus) {
            return Err(Error::Cpus { given: self.cpus });
        }
        for (index, bridge) in self.host_bridges.iter().enumerate() {
            let overlaps =
                |other: &HostBridge| other.bus <= bridge.last_bus() && bridge.bus <= other.last_bus();
            if self.host_bridges.iter().take(index).any(overlaps) {
                return Err(Error::DuplicateBus(bridge.bus));
            }
            bridge.check()?;
            for pin in bridge.pins() {
                let gsi = (self.gsi)(pin);
                if gsi >= layout::IO_APIC_PINS {
                    return Err(Error::Gsi { pin, gsi });
                }
            }
        }
        Ok(())
    }
}

impl HostBridge {
    /// The last of its buses.
    pub(super) fn last_bus(&self) -> u8 {
        self.last_behind_ports.unwrap_or(self.bus).max(self.bus)
    }

    /// All INTx pins of its bus, by device.
    pub(super) fn pins(&self) -> impl Iterator<Item = IntxPin> {
        let bus = self.bus;
        (0..32).flat_map(move |device| (0..4).map(move |pin| IntxPin { bus, device, pin }))
    }

    fn check(&self) -> Result<(), Error> {
        let ports = layout::WINDOW_IO;
        let window = |kind, range: &Range<u64>| Error::Window { bus: self.bus, kind, range: range.clone() };
        for range in &self.io {
            if range.is_empty() || range.start < ports.start || range.end > ports.end {
                return Err(window(WindowKind::Io, range));
            }
        }
        for range in &self.memory {
            let crosses_4g = range.start < layout::HIGH_RAM_START && range.end > layout::HIGH_RAM_START;
            if range.is_empty() || range.start == 0 || crosses_4g {
                return Err(window(WindowKind::Memory, range));
            }
        }
        Ok(())
    }
}
