//! Two vCPUs that access a function while others turn its decoding on and off, move its BARs, send it to sleep, reset it,
//! find that it does not answer, and take it away. The book stops at a mapping that overlaps or is unmapped twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

use crate::vmm::Vmm;

const BASE: u64 = 0xc000_0000;
/// Rounds of each that disturbs.
const ROUNDS: u32 = 300;
/// PMCSR of the simulated function.
const POWER: u16 = 0x44;

fn function(vmm: &Arc<Vmm>, space: &Arc<AddressSpace>, device: u8) -> Attached {
    let slot = Slot::new(0, device, 0).unwrap();
    let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
    let windows = Arc::new(Windows { memory: vec![BASE..BASE + 0x40_0000], io: vec![0x1000..0x2000] });
    let fresh = Fresh::one(host).unwrap();
    Attached::new(fresh, slot, Shape::default(), space.clone(), windows).unwrap()
}

/// Wherever the BARs are, an access finds what is there or all-ones.
fn access(vmm: &Vmm, round: u64) {
    let address = BASE + (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 0x40_0000;
    let mut data = [0; 4];
    vmm.read(address & !3, &mut data);
    vmm.write(address & !3, &(round as u32).to_le_bytes());
    vmm.read(BASE, &mut data);
    assert!(&data == b"SLTP" || data[0] != b'S' || data[1] != b'L', "half an answer: {data:x?}");
}

fn place(function: &Attached, at: u64) {
    for (bar, offset) in [(0, 0), (2, 0x10_0000), (4, 0x20_0000)] {
        function.assign(bar, at + offset);
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn accesses_race_everything_that_moves_a_function() {
    let vmm = Vmm::new();
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let (first, second) = (function(&vmm, &space, 8), function(&vmm, &space, 9));
    let (over, accesses) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for vcpu in 0..2 {
            let (vmm, over, accesses) = (&vmm, &over, &accesses);
            scope.spawn(move || {
                let mut round = vcpu;
                while !over.load(Ordering::Relaxed) {
                    access(vmm, round);
                    round += 2;
                }
                accesses.fetch_add(round, Ordering::Relaxed);
            });
        }
        // However this ends, the vCPUs do.
        let _stop = Stop(&over);
        thread::scope(|disturb| {
            disturb.spawn(|| {
                for round in 0..ROUNDS {
                    first.config().config_write(0x04, &[if round % 3 == 0 { 0 } else { 7 }, 0]);
                    first.config().config_write(POWER, &[if round % 5 == 0 { 3 } else { 0 }, 0]);
                }
            });
            disturb.spawn(|| {
                for round in 0..ROUNDS {
                    place(&first, BASE + u64::from(round % 2) * 0x10_0000);
                    first.config().config_write(0x10, &[0xff; 4]);
                    place(&first, BASE);
                }
            });
            disturb.spawn(|| {
                for round in 0..ROUNDS {
                    // On top of the other's.
                    place(&second, BASE);
                    second.config().config_write(0x04, &[7, 0]);
                    second.config().config_write(0x20, &[0xff; 4]);
                    if round % 8 == 0 {
                        second.reset();
                    }
                }
            });
            disturb.spawn(|| {
                for round in 0..ROUNDS / 4 {
                    space.withdraw_unanswered();
                    if round % 4 == 0 {
                        first.reset();
                    }
                    thread::yield_now();
                }
            });
        });
        // Away under the vCPUs' hands.
        first.config().config_write(POWER, &[0, 0]);
        first.config().config_write(0x04, &[7, 0]);
        drop((first, second));
    });
    assert!(accesses.load(Ordering::Relaxed) > 100);
    assert!(vmm.is_empty(), "something is left");
    let mut data = [0; 4];
    vmm.read(BASE, &mut data);
    assert_eq!(data, [0xff; 4]);
}
