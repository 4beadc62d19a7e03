//! Plans the windows of each root bus' host bridge and of each root port, and an address for each BAR.
//!
//! A root bus has a host bridge of its own, and claims up to three windows, which no other bus shares: 32-bit memory,
//! 64-bit memory and I/O. A root port's windows lie inside bus 0's. The plan depends on nothing but its input, and not
//! on the input's order, so a guest finds the same addresses at each start.
//!
//! On a root bus it does not matter whether a BAR is prefetchable. That a prefetchable window must not hold other BARs
//! is a rule for the windows of PCI-to-PCI bridges (PCI-to-PCI Bridge Architecture 1.2), which may read ahead, and root
//! ports are such bridges; a host bridge's window says in `_CRS` whether it may, and ours must say no. Linux puts any
//! BAR into such a window: it refuses only a non-prefetchable BAR in a prefetchable window
//! (`pci_find_parent_resource`, `pci_bus_alloc_from_region`), and goes by a BAR's width alone when it chooses between
//! windows below and above 4 GiB (`pci_bus_alloc_resource`).

mod free;
mod layout;
mod port;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use passthru::pci::bar::Bar;
use passthru::pci::{Slot, Space};

use self::layout::{Claim, Layout, Place, What};
use self::port::PortClaims;
use super::ports::PortBuses;
use super::root_port::PortWindows;
use super::slots;

/// 64-bit BARs above this size go above 4 GiB even if there is room below.
pub const LARGEST_LOW: u64 = 64 << 20;

/// A function's BARs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionBars {
    /// Where the function is.
    pub slot: Slot,
    /// The BARs it has.
    pub bars: Vec<Bar>,
}

/// A root port, and how much room its windows have at least, so that functions can be plugged in behind it. They have
/// more where the functions behind it need more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRoom {
    /// The bus behind it, 1 to 15.
    pub bus: u8,
    /// Bytes of memory below 4 GiB.
    pub memory: u64,
    /// Bytes of prefetchable memory, above 4 GiB.
    pub prefetchable: u64,
}

/// What all windows together may take. A range may be empty; memory ranges begin and end at multiples of 4
/// KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// Below 4 GiB.
    pub memory32: Range<u64>,
    /// Anywhere above.
    pub memory64: Range<u64>,
    /// I/O ports.
    pub io: Range<u64>,
    /// Parts of the memory ranges that must stay free, such as the range that AMD processors reserve for
    /// HyperTransport.
    pub excluded: Vec<Range<u64>>,
}

/// The kinds of windows that a host bridge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory above 4 GiB.
    Memory64,
    /// I/O ports.
    Io,
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WindowKind::Memory32 => "32-bit memory",
            WindowKind::Memory64 => "64-bit memory",
            WindowKind::Io => "I/O",
        })
    }
}

impl WindowKind {
    /// Windows of buses above 0 begin and end at multiples of it.
    const fn granularity(self) -> u64 {
        match self {
            WindowKind::Memory32 | WindowKind::Memory64 => 1 << 20,
            WindowKind::Io => 1 << 12,
        }
    }

    /// What a BAR takes at least. A memory BAR takes a page of its own, so that it can be mapped alone.
    const fn least(self) -> u64 {
        match self {
            WindowKind::Memory32 | WindowKind::Memory64 => 1 << 12,
            WindowKind::Io => 1,
        }
    }
}

/// The windows of one root bus. Bus 0 has what the others leave of each kind, the largest piece of it, and no
/// window only where they leave nothing; other buses have the kinds that their BARs need, with room for as
/// much again where there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusWindows {
    /// Bus number.
    pub bus: u8,
    /// Memory below 4 GiB.
    pub memory32: Option<Range<u64>>,
    /// Memory above 4 GiB.
    pub memory64: Option<Range<u64>>,
    /// I/O ports.
    pub io: Option<Range<u64>>,
}

/// A BAR and its address, which is a multiple of its size and lies in its root bus' window of this kind. Behind a root
/// port it lies in the port's window as well, the prefetchable one if it is above 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBar {
    /// The function.
    pub slot: Slot,
    /// The BAR's index.
    pub index: u8,
    /// Which of its root bus' windows it is in.
    pub window: WindowKind,
    /// Guest-physical address, or port.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Windows of all buses and addresses of all BARs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    buses: Vec<BusWindows>,
    ports: Vec<(u8, PortWindows)>,
    bars: Vec<PlacedBar>,
}

impl Plan {
    /// Windows of the root buses, by bus number; bus 0 is always there.
    pub fn buses(&self) -> &[BusWindows] {
        &self.buses
    }

    /// Windows of the root ports, by the number of the bus behind them.
    pub fn ports(&self) -> &[(u8, PortWindows)] {
        &self.ports
    }

    /// All BARs, by slot and index.
    pub fn bars(&self) -> &[PlacedBar] {
        &self.bars
    }

    /// The BARs of the function at `slot`, by index.
    pub fn bars_of(&self, slot: Slot) -> &[PlacedBar] {
        let start = self.bars.partition_point(|bar| bar.slot < slot);
        let end = self.bars.partition_point(|bar| bar.slot <= slot);
        self.bars.get(start..end).unwrap_or_default()
    }

    /// Address of BAR `index` of the function at `slot`.
    pub fn address(&self, slot: Slot, index: u8) -> Option<u64> {
        self.bars_of(slot).iter().find(|bar| bar.index == index).map(|bar| bar.address)
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No place for a BAR.
    #[error(
        "slot {slot}: no place for BAR {bar} ({}) in the {window} window {}: {} of {} left; \
         pass through fewer or smaller functions",
        Bytes(*.size), Addresses(.range), Bytes(*.left), Bytes(.range.end.saturating_sub(.range.start))
    )]
    NoRoom {
        /// The function.
        slot: Slot,
        /// Index of the BAR.
        bar: u8,
        /// Bytes that it needs, at a multiple of that many.
        size: u64,
        /// Which window.
        window: WindowKind,
        /// All that buses have together of it.
        range: Range<u64>,
        /// Bytes of it that are left, in pieces where alignment has it so.
        left: u64,
    },
    /// No place for a root port's window.
    #[error(
        "bus {bus}: no place for the {} that its root port forwards in the {window} window {}: {} of {} left; give \
         root ports less room, or pass through fewer or smaller functions (behind a port, BARs that are not \
         prefetchable must be below 4 GiB)",
        Bytes(*.size), Addresses(.range), Bytes(*.left), Bytes(.range.end.saturating_sub(.range.start))
    )]
    NoRoomForPort {
        /// The bus behind the port.
        bus: u8,
        /// Bytes of the port's window.
        size: u64,
        /// Which of bus 0's windows.
        window: WindowKind,
        /// All that buses have together of it.
        range: Range<u64>,
        /// Bytes of it that are left, in pieces where alignment has it so.
        left: u64,
    },
    /// Not a size that a BAR can have.
    #[error("slot {slot}: BAR {bar} has {size:#x} bytes, which is no power of two")]
    Size {
        /// The function.
        slot: Slot,
        /// Index of the BAR.
        bar: u8,
        /// What is given as its size.
        size: u64,
    },
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

struct Addresses<'a>(&'a Range<u64>);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.end.checked_sub(1).filter(|_| !self.0.is_empty()) {
            Some(last) => write!(f, "{:#x}-{last:#x}", self.0.start),
            None => f.write_str("(there is none)"),
        }
    }
}

/// Plans windows and addresses for `functions`, those on the buses of `ports` behind root ports.
///
/// On root buses, 64-bit BARs of up to [`LARGEST_LOW`] go below 4 GiB, where any guest reaches them, and the largest of
/// them above when not all fit; larger ones go above, and below when there is no room above. Everything else has one
/// window it can be in: behind a port, 64-bit prefetchable BARs are in the prefetchable window above 4 GiB, and other
/// memory below.
pub fn plan(
    functions: &[FunctionBars],
    ports: &[PortRoom],
    available: &Available,
) -> Result<Plan, PlanError> {
    let port_buses = PortBuses::from_iter(ports.iter().map(|port| port.bus));
    let (mut io, mut narrow, mut wide) = (Vec::new(), Vec::new(), Vec::new());
    let mut behind: Vec<PortClaims> = ports.iter().copied().filter_map(PortClaims::new).collect();
    for function in functions {
        for bar in &function.bars {
            if !bar.size.is_power_of_two() {
                return Err(PlanError::Size { slot: function.slot, bar: bar.index, size: bar.size });
            }
            if let Some(port) = behind.iter_mut().find(|port| port.bus() == function.slot.bus()) {
                port.add(function.slot, bar);
                continue;
            }
            let claim = |kind| Claim::of_bar(function.slot, bar, kind);
            match bar.kind.space() {
                Space::Io => io.push(claim(WindowKind::Io)),
                Space::Memory if bar.kind.is_64bit() => wide.push(claim(WindowKind::Memory64)),
                Space::Memory => narrow.push(claim(WindowKind::Memory32)),
            }
        }
    }
    wide.sort_unstable_by_key(Claim::placing_order);
    let mut above = Vec::new();
    for port in &behind {
        io.extend(port.window(WindowKind::Io));
        narrow.extend(port.window(WindowKind::Memory32));
        above.extend(port.window(WindowKind::Memory64));
    }

    let large = wide.partition_point(|claim| claim.size > LARGEST_LOW);
    let (low, high) = plan_memory(&narrow, &wide, &above, large, available).or_else(|error| {
        let all_below = || plan_memory(&narrow, &wide, &above, 0, available).map_err(|_| error.clone());
        if large == 0 { Err(error.clone()) } else { all_below() }
    })?;
    let io = layout::generous(WindowKind::Io, &available.io, &[], &io)?;

    let slots: Vec<Slot> = functions.iter().map(|function| function.slot).collect();
    let buses = slots::root_buses(&slots, port_buses).into_iter().map(|bus| BusWindows {
        bus,
        memory32: low.window(bus),
        memory64: high.window(bus),
        io: io.window(bus),
    });
    let kinds = [(WindowKind::Memory32, &low), (WindowKind::Memory64, &high), (WindowKind::Io, &io)];
    let mut bars = Vec::new();
    let mut windows: BTreeMap<u8, PortWindows> =
        port_buses.iter().map(|bus| (bus, PortWindows::default())).collect();
    for (kind, Place { claim, address }) in
        kinds.into_iter().flat_map(|(kind, layout)| layout.places().iter().map(move |place| (kind, *place)))
    {
        match claim.what {
            What::Bar(index) => {
                bars.push(PlacedBar { slot: claim.slot, index, window: kind, address, size: claim.size });
            }
            What::Port(bus) => {
                let window = Some(address..address + claim.size);
                let windows = windows.entry(bus).or_default();
                match kind {
                    WindowKind::Io => windows.io = window,
                    WindowKind::Memory32 => windows.memory = window,
                    WindowKind::Memory64 => windows.prefetchable = window,
                }
                let port = behind.iter().find(|port| port.bus() == bus);
                bars.extend(port.into_iter().flat_map(|port| port.bars(kind, address)));
            }
        }
    }
    bars.sort_unstable_by_key(|bar| (bar.slot, bar.index));
    Ok(Plan { buses: buses.collect(), ports: windows.into_iter().collect(), bars })
}

/// Lays out memory below and above 4 GiB with the first `least` or more of `wide` above: as few as leave room
/// for the others below. `above` is there in any case.
fn plan_memory(
    narrow: &[Claim],
    wide: &[Claim],
    above: &[Claim],
    least: usize,
    available: &Available,
) -> Result<(Layout, Layout), PlanError> {
    let lay_out_low = |moved: usize| {
        let below = wide.iter().skip(moved);
        let claims: Vec<Claim> = narrow.iter().chain(below).copied().collect();
        layout::generous(WindowKind::Memory32, &available.memory32, &available.excluded, &claims)
    };
    // By halves, for the sake of slot maps with thousands of functions: the fewer BARs below, the easier.
    let (mut moved, mut enough) = (least, wide.len());
    while moved < enough {
        let middle = moved.midpoint(enough);
        if lay_out_low(middle).is_ok() {
            enough = middle;
        } else {
            moved = middle + 1;
        }
    }
    let low = lay_out_low(moved)?;
    let claims: Vec<Claim> = wide.iter().take(moved).chain(above).copied().collect();
    let high = layout::generous(WindowKind::Memory64, &available.memory64, &available.excluded, &claims)?;
    Ok((low, high))
}
