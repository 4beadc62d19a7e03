//! What the core does for a write of the guest's, and what becomes of it in a VMM whose calls cost nothing.

use std::hint::black_box;

use benches::machine::{Machine, core};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use passthru::pci::registers::{BAR0, COMMAND};

fn bar_write(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    let mut effects = Vec::new();

    let mut function = core();
    let mut address = 0xc000_0000u32;
    group.bench_function("BAR write, decode off", |b| {
        b.iter(|| {
            address ^= 0x10_0000;
            function.write_config(BAR0, black_box(&address.to_le_bytes()), &mut effects);
            black_box(effects.drain(..).count())
        });
    });
    function.write_config(COMMAND, &[3, 0], &mut effects);
    effects.clear();
    group.bench_function("BAR write, decode on", |b| {
        b.iter(|| {
            address ^= 0x10_0000;
            function.write_config(BAR0, black_box(&address.to_le_bytes()), &mut effects);
            black_box(effects.drain(..).count())
        });
    });
    group.bench_function("reset", |b| {
        let function = core();
        b.iter_batched_ref(
            || function.clone(),
            |function| {
                function.reset(&mut effects);
                black_box(effects.drain(..).count())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn msix_table_write(c: &mut Criterion) {
    let mut group = c.benchmark_group("MSI-X table write");
    let mut machine = Machine::new();
    machine.arm(0);
    let attached = machine.ports.attaches.get();
    assert_eq!(attached, 1, "the vector is armed");
    group.bench_function("nothing changes", |b| b.iter(|| machine.write_vector(0, 3, black_box(0))));
    assert_eq!(machine.ports.attaches.get(), attached, "no call was made");
    // Another vector than the armed one, which stays masked.
    let mut data = 0u32;
    group.bench_function("masked vector, new message", |b| {
        b.iter(|| {
            data ^= 1;
            machine.write_vector(1, 2, black_box(data));
        });
    });
    group.bench_function("mask and unmask", |b| {
        b.iter(|| {
            machine.write_vector(0, 3, black_box(1));
            machine.write_vector(0, 3, black_box(0));
        });
    });
    assert!(machine.ports.attaches.get() > attached, "each unmask attaches again");
    let commits = machine.ports.commits.get();
    let mut data = 0;
    group.bench_function("armed vector, new message", |b| {
        b.iter(|| {
            data ^= 1;
            machine.write_vector(0, 2, black_box(0x40 | data));
        });
    });
    assert!(machine.ports.commits.get() > commits, "each message is a new route");
    group.finish();
}

criterion_group! {
    name = benches;
    config = benches::criterion();
    targets = bar_write, msix_table_write
}
criterion_main!(benches);
