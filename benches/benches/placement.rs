//! Where BARs go: the plan before the guest starts, and the moves while it runs.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use benches::FUNCTIONS;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use devices::pci::windows::{self, Available, FunctionBars};
use passthru::function::Placement;
use passthru::pci::bar::{Bar, BarKind};
use passthru::pci::{Slot, Space};
use passthru::space::layout::{Layout, OwnerId, Windows};

/// As an NVMe drive, a network card and a card with much memory have them.
const BARS: [Bar; 3] = [
    Bar { index: 0, kind: BarKind::Memory64 { prefetchable: false }, size: 0x4000 },
    Bar { index: 2, kind: BarKind::Memory32 { prefetchable: false }, size: 0x2_0000 },
    Bar { index: 3, kind: BarKind::Memory64 { prefetchable: true }, size: 1 << 20 },
];

fn functions(number: usize) -> Vec<FunctionBars> {
    let slot = |n: usize| Slot::from_requester_id((n / 248 * 256 + 8 + n % 248) as u16);
    (0..number).map(|n| FunctionBars { slot: slot(n), bars: BARS.to_vec() }).collect()
}

fn available() -> Available {
    Available {
        memory32: 0xc000_0000..0xe000_0000,
        memory64: 1 << 32..1 << 39,
        io: 0x1000..0x1_0000,
        excluded: Vec::new(),
    }
}

fn plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("window plan");
    for number in FUNCTIONS {
        let (functions, available) = (functions(number), available());
        // With 1024 functions not all 64-bit BARs fit below 4 GiB, so that several plans are tried.
        group.bench_function(BenchmarkId::from_parameter(number), |b| {
            b.iter(|| windows::plan(black_box(&functions), &[], &available).unwrap());
        });
    }
    group.finish();
}

/// All functions placed one after the other, decoding.
fn layout(number: usize) -> Layout {
    let mut layout = Layout::default();
    let windows = Arc::new(Windows { memory: vec![1 << 32..1 << 40], io: Vec::new() });
    for n in 0..number {
        let owner = OwnerId(n as u32);
        layout.add_owner(owner, windows.clone());
        let changes = layout.place(owner, &moves(n as u64, true));
        assert_eq!((changes.add.len(), changes.refused.len()), (BARS.len(), 0));
    }
    layout
}

/// The BARs of the nth function, in 2 MiB of its own.
fn moves(n: u64, decodes: bool) -> Vec<Placement> {
    let base = (1u64 << 32) + n * (2 << 20);
    let offsets = [0x4000, 0x2_0000, 1 << 20];
    let place = |(bar, offset): (&Bar, u64)| Placement {
        bar: bar.index,
        space: Space::Memory,
        size: bar.size,
        base: decodes.then_some(base + offset),
    };
    BARS.iter().zip(offsets).map(place).collect()
}

fn layout_moves(c: &mut Criterion) {
    let mut group = c.benchmark_group("layout");
    for number in FUNCTIONS {
        let mut layout = layout(number);
        let owner = OwnerId(number as u32 / 2);
        let n = u64::from(owner.0);
        let (off, on) = (moves(n, false), moves(n, true));
        group.bench_function(BenchmarkId::new("decode off and on", number), |b| {
            b.iter(|| {
                black_box(layout.place(owner, &off));
                black_box(layout.place(owner, &on))
            });
        });
        // To free addresses behind the last function and back.
        let away = Placement { base: Some((1 << 32) + number as u64 * (2 << 20)), ..*on.first().unwrap() };
        let back = *on.first().unwrap();
        group.bench_function(BenchmarkId::new("a BAR away and back", number), |b| {
            b.iter(|| {
                black_box(layout.place(owner, &[away]));
                black_box(layout.place(owner, &[back]))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = benches::criterion();
    targets = plan, layout_moves
}
criterion_main!(benches);
