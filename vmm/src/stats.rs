//! What `--stats` counts. The JSON form is documented in `vmm/STATS.md`; whoever changes it there and here raises
//! [`SCHEMA`].

use std::fmt::{self, Write as _};

use passthru::attached::Attached;
use passthru::function::pieces::{Backing, Reason};
use serde::Serialize;

use crate::bus::{Bus, Count, Counts, Region};
use crate::kvm::vcpu::{Exits, Vcpu};
use crate::page_times::{PAGE, PageTimes, Times};
use crate::start_times::StartTimes;
use crate::wording;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// Everything that was counted.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    schema: u32,
    version: &'static str,
    start: StartTimes,
    exits: Exits,
    vcpus: Vec<Exits>,
    coalesced: u64,
    functions: Vec<Function>,
    devices: Vec<Device>,
    absent: Count,
    unclaimed: Unclaimed,
    calls: Calls,
}

#[derive(Clone, Debug, Serialize)]
struct Function {
    slot: String,
    host: String,
    config: Count,
    bars: Vec<Bar>,
}

#[derive(Clone, Debug, Serialize)]
struct Bar {
    bar: u8,
    kind: &'static str,
    prefetchable: bool,
    size: u64,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, Serialize)]
struct Piece {
    offset: u64,
    size: u64,
    mapped: bool,
    /// Reads take no exit.
    read_only: bool,
    reason: Option<Reason>,
    #[serde(flatten)]
    exits: Count,
    pages: Vec<Page>,
}

/// A page of a trapped piece that was accessed.
#[derive(Clone, Debug, Serialize)]
struct Page {
    /// In the BAR; nothing for all those together that were not kept apart.
    offset: Option<u64>,
    #[serde(flatten)]
    exits: Count,
    ns: Nanoseconds,
}

/// From the exit's lookup to its answer, without the exit itself.
#[derive(Clone, Copy, Debug, Serialize)]
struct Nanoseconds {
    sum: u64,
    min: u64,
    max: u64,
    p50: u64,
    p99: u64,
}

impl From<&Times> for Nanoseconds {
    fn from(times: &Times) -> Nanoseconds {
        Nanoseconds {
            sum: times.sum(),
            min: times.least(),
            max: times.most(),
            p50: times.percentile(50),
            p99: times.percentile(99),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Device {
    name: &'static str,
    #[serde(flatten)]
    exits: Count,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Unclaimed {
    memory: Count,
    io: Count,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Calls {
    set_user_memory_region: u64,
    set_gsi_routing: u64,
    set_irqs: u64,
}

impl Stats {
    pub(crate) fn collect(
        vcpus: &[Vcpu],
        bus: &Bus,
        functions: &[Attached],
        calls: [u64; 2],
        coalesced: u64,
        start: StartTimes,
    ) -> Stats {
        let (mut exits, mut counts) = (Exits::default(), Counts::default());
        let mut times = PageTimes::default();
        for vcpu in vcpus {
            exits.merge(&vcpu.exits);
            counts.merge(&vcpu.view.counts);
            if let Some(own) = &vcpu.view.times {
                times.merge(own);
            }
        }
        let regions: Vec<(Region, Count)> = bus
            .regions()
            .into_iter()
            .zip(counts.regions.iter().copied().chain(std::iter::repeat(Count::default())))
            .collect();
        let device = |(region, exits): &(Region, Count)| match region {
            Region::Device(name) => Some(Device { name, exits: *exits }),
            Region::Bar { .. } => None,
        };
        let function = |function: &Attached| {
            Function::of(function, &regions, &times, counts.of_function(function.slot()))
        };
        let [set_user_memory_region, set_gsi_routing] = calls;
        let set_irqs = functions.iter().map(|function| function.host().vector_calls()).sum();
        Stats {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            start,
            exits,
            vcpus: vcpus.iter().map(|vcpu| vcpu.exits).collect(),
            coalesced,
            functions: functions.iter().map(function).collect(),
            devices: regions.iter().filter_map(device).collect(),
            absent: counts.absent,
            unclaimed: Unclaimed { memory: counts.unclaimed_memory, io: counts.unclaimed_io },
            calls: Calls { set_user_memory_region, set_gsi_routing, set_irqs },
        }
    }
}

impl Function {
    fn of(function: &Attached, regions: &[(Region, Count)], times: &PageTimes, config: Count) -> Function {
        let slot = function.slot();
        let index = |bar: u8, offset: u64| {
            let wanted = Region::Bar { slot, bar, offset };
            regions.iter().position(|(region, _)| *region == wanted)
        };
        let exits = |bar: u8, offset: u64| {
            let region = index(bar, offset).and_then(|index| regions.get(index));
            region.map_or(Count::default(), |(_, count)| *count)
        };
        let pages = |bar: u8, offset: u64| {
            let own = index(bar, offset).map_or(Vec::new(), |index| times.of_region(index));
            let page = |number: u64| offset.saturating_add(number.saturating_mul(PAGE));
            own.iter()
                .map(|(key, times)| Page {
                    offset: key.number.map(page),
                    exits: times.count(),
                    ns: Nanoseconds::from(*times),
                })
                .collect()
        };
        let bars = function.bars().iter().map(|bar| Bar {
            bar: bar.index,
            kind: wording::kind_name(bar.kind),
            prefetchable: bar.kind.is_prefetchable(),
            size: bar.size,
            pieces: function
                .pieces()
                .iter()
                .filter(|piece| piece.range.bar == bar.index)
                .map(|piece| Piece {
                    offset: piece.range.offset,
                    size: piece.range.len,
                    mapped: piece.backing == Backing::Mapped,
                    read_only: piece.backing.is_read_only(),
                    reason: piece.backing.reason(),
                    exits: exits(bar.index, piece.range.offset),
                    pages: pages(bar.index, piece.range.offset),
                })
                .collect(),
        });
        Function {
            slot: slot.to_string(),
            host: function.host().name().to_string(),
            config,
            bars: bars.collect(),
        }
    }
}

/// Most pages that the table for a person names.
const BUSIEST: usize = 10;

impl Stats {
    /// The pages that took the most time, and why they are trapped.
    fn busiest_pages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pages: Vec<(&Function, &Bar, &Piece, &Page)> = self
            .functions
            .iter()
            .flat_map(|function| function.bars.iter().map(move |bar| (function, bar)))
            .flat_map(|(function, bar)| bar.pieces.iter().map(move |piece| (function, bar, piece)))
            .flat_map(|(function, bar, piece)| {
                piece.pages.iter().map(move |page| (function, bar, piece, page))
            })
            .collect();
        if pages.is_empty() {
            return Ok(());
        }
        pages.sort_by_key(|(_, _, _, page)| std::cmp::Reverse(page.ns.sum));
        writeln!(
            f,
            "{:<22} {:>12} {:>12} {:>10} {:>8} {:>8} {:>9}  ns",
            "trapped page", "reads", "writes", "us in all", "p50", "p99", "most"
        )?;
        for (function, bar, piece, Page { offset, exits, ns }) in pages.iter().take(BUSIEST) {
            let offset = offset.map_or("elsewhere".to_owned(), |offset| format!("{offset:#x}"));
            let name = format!("{} BAR {} {offset}", function.slot, bar.bar);
            writeln!(
                f,
                "{name:<22} {:>12} {:>12} {:>10} {:>8} {:>8} {:>9}",
                exits.reads,
                exits.writes,
                ns.sum / 1000,
                ns.p50,
                ns.p99,
                ns.max
            )?;
            if let Some(reason) = piece.reason {
                writeln!(f, "    {}", wording::advice(reason))?;
            }
        }
        if pages.len() > BUSIEST {
            writeln!(f, "    and {} more pages", pages.len() - BUSIEST)?;
        }
        Ok(())
    }
}

/// A table for a person.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.start)?;
        let Exits { io_in, io_out, mmio_read, mmio_write, hlt, interrupted, other } = self.exits;
        writeln!(
            f,
            "exits: io in {io_in}, io out {io_out}, mmio read {mmio_read}, mmio write {mmio_write}, hlt {hlt}, \
             interrupted {interrupted}, other {other}; {} port writes without exit",
            self.coalesced
        )?;
        writeln!(f, "{:<40} {:>12} {:>12}", "reached", "reads", "writes")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, count: Count| {
            writeln!(f, "{name:<40} {:>12} {:>12}", count.reads, count.writes)
        };
        for function in &self.functions {
            writeln!(f, "{} = {}", function.slot, function.host)?;
            row(f, "  config space", function.config)?;
            for bar in &function.bars {
                for piece in &bar.pieces {
                    let mut name =
                        format!("  BAR {} {:#x}..{:#x}", bar.bar, piece.offset, piece.offset + piece.size);
                    match piece.reason {
                        None => name.push_str(" mapped"),
                        Some(reason) if piece.read_only => write!(name, " {reason:?}, writes")?,
                        Some(reason) => write!(name, " {reason:?}")?,
                    }
                    row(f, &name, piece.exits)?;
                }
            }
        }
        for device in self.devices.iter().filter(|device| device.exits != Count::default()) {
            row(f, device.name, device.exits)?;
        }
        row(f, "config space of absent functions", self.absent)?;
        row(f, "nobody, memory", self.unclaimed.memory)?;
        row(f, "nobody, ports", self.unclaimed.io)?;
        self.busiest_pages(f)?;
        let Calls { set_user_memory_region, set_gsi_routing, set_irqs } = self.calls;
        write!(
            f,
            "KVM_SET_USER_MEMORY_REGION {set_user_memory_region} times, KVM_SET_GSI_ROUTING {set_gsi_routing} times, \
             VFIO_DEVICE_SET_IRQS for vectors {set_irqs} times"
        )
    }
}
