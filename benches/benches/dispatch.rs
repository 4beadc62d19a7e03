//! From an access that exits to who answers it: the bus, the PCI topology, and configuration space by both decoders.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use benches::machine::{CONFIG_ADDRESS, CONFIG_DATA, Machine, core};
use benches::{FUNCTIONS, Shuffled};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use devices::pci::topology::Topology;
use passthru::pci::{ConfigAccess, Slot, Space};
use passthru::ports::{BarAccess, Trap};
use vmm::bus::Bus;

/// Answers as fast as can be, so that the way to it is what is measured.
struct Nothing;

impl BarAccess for Nothing {
    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) {}
}

impl ConfigAccess for Nothing {
    fn config_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn config_write(&self, _: u16, _: &[u8]) {}
}

/// Slots of this many functions, all 31 devices of a bus with 8 functions each before the next bus.
fn slots(functions: usize) -> Vec<Slot> {
    let numbered = |n: usize| Slot::from_requester_id((n / 248 * 256 + 8 + n % 248) as u16);
    (0..functions).map(numbered).collect()
}

/// Registers, MSI-X table and pending bits of each function, trapped, with mapped memory in between.
fn bus(functions: usize) -> (Bus, Vec<u64>) {
    let bus = Bus::new();
    let target = Arc::new(Nothing);
    let mut traps = Vec::new();
    for (base, slot) in (0xc000_0000u64..).step_by(0x1_0000).zip(slots(functions)) {
        for (bar, offset) in [(0, 0), (4, 0x4000), (4, 0x8000)] {
            let (start, target) = (base + offset, target.clone());
            traps.push(Trap {
                space: Space::Memory,
                range: start..start + 0x1000,
                target,
                slot,
                bar,
                offset,
            });
        }
    }
    bus.trap(&[], &traps).unwrap();
    (bus, traps.iter().map(|trap| trap.range.start).collect())
}

fn bus_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("bus");
    for functions in FUNCTIONS {
        let (bus, addresses) = bus(functions);
        let mut data = [0; 4];
        let mut view = bus.view();
        let last = *addresses.last().unwrap();
        group.bench_function(BenchmarkId::new("same BAR again", functions), |b| {
            b.iter(|| view.read(Space::Memory, black_box(last + 0x10), black_box(&mut data)));
        });
        let mut addresses = Shuffled::of(&addresses);
        group.bench_function(BenchmarkId::new("any BAR", functions), |b| {
            b.iter(|| view.read(Space::Memory, black_box(addresses.pick() + 0x10), black_box(&mut data)));
        });
        group.bench_function(BenchmarkId::new("nobody", functions), |b| {
            b.iter(|| view.read(Space::Memory, black_box(addresses.pick() + 0x3000), black_box(&mut data)));
        });
    }
    group.finish();
}

fn slot_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("topology");
    for functions in FUNCTIONS {
        let slots = slots(functions);
        let mut builder = Topology::builder();
        for slot in &slots {
            builder.add(*slot, Arc::new(Nothing));
        }
        let topology = builder.build().unwrap();
        let last = *slots.last().unwrap();
        group.bench_function(BenchmarkId::new("same slot again", functions), |b| {
            b.iter(|| topology.routes().get(black_box(last)).is_some());
        });
        let mut slots = Shuffled::of(&slots);
        group.bench_function(BenchmarkId::new("any slot", functions), |b| {
            b.iter(|| topology.routes().get(black_box(slots.pick())).is_some());
        });
    }
    group.finish();
}

fn config_read(c: &mut Criterion) {
    /// Vendor and device id, known for good.
    const SHADOWED: u8 = 0x00;
    /// Device control and status of the PCI Express capability: the host is asked.
    const LIVE: u8 = 0x88;

    for (register, live) in [(SHADOWED, false), (LIVE, true)] {
        let read = core().read_config(u16::from(register), 4, |_, _| false);
        assert_eq!(read.live != 0, live, "register {register:#x}");
    }
    let mut group = c.benchmark_group("config read");
    let mut machine = Machine::new();
    let mut data = [0; 4];
    for (name, register) in [("shadowed", SHADOWED), ("live", LIVE)] {
        let address = machine.config_address(register).to_le_bytes();
        group.bench_function(BenchmarkId::new("CF8", name), |b| {
            b.iter(|| {
                machine.view.write(Space::Io, CONFIG_ADDRESS, black_box(&address));
                machine.view.read(Space::Io, CONFIG_DATA, black_box(&mut data));
            });
        });
        let address = machine.ecam(u64::from(register));
        group.bench_function(BenchmarkId::new("ECAM", name), |b| {
            b.iter(|| machine.view.read(Space::Memory, black_box(address), black_box(&mut data)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = benches::criterion();
    targets = bus_lookup, slot_lookup, config_read
}
criterion_main!(benches);
