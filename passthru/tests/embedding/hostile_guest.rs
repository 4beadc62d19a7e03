//! Two functions in one guest that writes what it likes: the VMM's book refuses mappings that overlap or are no whole
//! pages, and all of them stay inside the windows.

use std::sync::Arc;

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;
use proptest::prelude::*;

use crate::vmm::Vmm;

/// Small, so that BARs meet: 4 MiB for BARs of 1 MiB, 64 KiB and 4 KiB, two of each.
const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xc040_0000;

#[derive(Clone, Debug)]
enum Step {
    Bar { function: usize, register: u16, value: u32 },
    Command { function: usize, value: u16 },
    Config { function: usize, offset: u16, value: u32 },
    Memory { address: u64, value: u32 },
    Reset { function: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0u32..0x440;
    prop_oneof![
        6 => (0usize..2, 0u16..6, page, any::<bool>()).prop_map(|(function, register, page, all)| {
            let value = if all { u32::MAX } else { 0xbff0_0000 + page * 0x1000 };
            Step::Bar { function, register: 0x10 + 4 * register, value }
        }),
        // The upper halves of 64-bit BARs are zero most of the time, or nothing would ever answer.
        4 => (0usize..2, prop::sample::select(vec![0x1cu16, 0x24]), prop::sample::select(vec![0u32, 0, 0, 1]))
            .prop_map(|(function, register, value)| Step::Bar { function, register, value }),
        4 => (0usize..2, 0u16..8).prop_map(|(function, value)| Step::Command { function, value }),
        2 => (0usize..2, 0u16..1024, any::<u32>()).prop_map(|(function, dword, value)| {
            Step::Config { function, offset: dword * 4, value }
        }),
        4 => (0u64..0x40_0000, any::<u32>()).prop_map(|(offset, value)| {
            Step::Memory { address: WINDOW.start + (offset & !3), value }
        }),
        1 => (0usize..2).prop_map(|function| Step::Reset { function }),
    ]
}

fn check(vmm: &Vmm) -> Result<(), TestCaseError> {
    let book = vmm.book();
    for (start, len) in book.mapped.keys() {
        prop_assert!(WINDOW.start <= *start && start + len <= WINDOW.end, "{start:#x}+{len:#x}");
        for trap in &book.trapped {
            let apart = trap.space != passthru::pci::Space::Memory
                || trap.range.end <= *start
                || start + len <= trap.range.start;
            prop_assert!(apart, "{trap:?} lies on the mapping at {start:#x}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_a_guest_writes_leads_outside(steps in prop::collection::vec(step(), 0..200)) {
        let vmm = Vmm::new();
        let space = Arc::new(AddressSpace::new(vmm.clone()));
        let windows = Arc::new(Windows { memory: vec![WINDOW], io: vec![0x1000..0x1_0000] });
        let functions: Vec<Attached> = (0..2)
            .map(|number| {
                let slot = Slot::new(0, 8, number).unwrap();
                let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
                Attached::new(Fresh::one(host).unwrap(), slot, Shape { multi_function: true, ..Shape::default() }, space.clone(), windows.clone()).unwrap()
            })
            .collect();
        for step in steps {
            match step {
                Step::Bar { function, register, value } => {
                    functions[function].config().config_write(register, &value.to_le_bytes());
                }
                Step::Command { function, value } => {
                    functions[function].config().config_write(0x04, &value.to_le_bytes());
                }
                Step::Config { function, offset, value } => {
                    functions[function].config().config_write(offset, &value.to_le_bytes());
                }
                Step::Memory { address, value } => {
                    vmm.write(address, &value.to_le_bytes());
                    vmm.read(address, &mut [0; 4]);
                }
                Step::Reset { function } => functions[function].reset(),
            }
            check(&vmm)?;
        }
        drop(functions);
        prop_assert!(vmm.is_empty(), "something is left");
    }
}
