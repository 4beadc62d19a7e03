//! Two functions in one guest that writes what it likes: the VMM's book refuses mappings that overlap or are no whole
//! pages, and all of them stay inside the windows. What the guest reads without an exit is trapped as well, and is what a read
//! gives that exits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::{Slot, Space};
use passthru::ports::Trap;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::vmm::Vmm;

/// Small, so that BARs meet: 4 MiB for BARs of 1 MiB, 64 KiB and 4 KiB, two of each.
const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xc040_0000;

#[derive(Clone, Debug)]
enum Step {
    Bar {
        function: usize,
        register: u16,
        value: u32,
    },
    Command {
        function: usize,
        value: u16,
    },
    Config {
        function: usize,
        offset: u16,
        value: u32,
    },
    Memory {
        address: u64,
        value: u32,
    },
    /// BAR 4, which has the MSI-X structures, answers at a place where it may, and MSI-X is on.
    Structures {
        function: usize,
        place: u32,
    },
    /// The high byte of MSI-X' control register.
    Msix {
        function: usize,
        control: u8,
    },
    /// So many bytes of the table, wherever it is.
    Table {
        function: usize,
        offset: u64,
        len: usize,
        value: u64,
    },
    Vector {
        function: usize,
        vector: u64,
        masked: bool,
    },
    Trigger {
        function: usize,
        vector: u32,
    },
    Reset {
        function: usize,
    },
}

/// Vectors that the guest arms.
const VECTORS: u32 = 2;
/// In BAR 4, the MSI-X structures: each begins a page that the guest reads without an exit.
const STRUCTURES: [(u64, u64); 2] = [(0, 0x1000), (0x8000, 0x20)];
/// Values are compared after so many steps; it takes long.
const EVERY: usize = 16;

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
        5 => (0usize..2, 0u32..0x40).prop_map(|(function, place)| Step::Structures { function, place }),
        2 => (0usize..2, prop::sample::select(vec![0u8, 0x40, 0x80, 0x80, 0x80, 0x80, 0xc0, 0xc0]))
            .prop_map(|(function, control)| Step::Msix { function, control }),
        2 => (0usize..2, 0u64..0x1000, 0u32..4, any::<u64>()).prop_map(|(function, offset, width, value)| {
            Step::Table { function, offset, len: 1 << width, value }
        }),
        8 => (0usize..2, 0..u64::from(VECTORS), any::<bool>())
            .prop_map(|(function, vector, masked)| Step::Vector { function, vector, masked }),
        6 => (0usize..2, 0..VECTORS).prop_map(|(function, vector)| Step::Trigger { function, vector }),
        1 => (0usize..2).prop_map(|function| Step::Reset { function }),
    ]
}

fn check(vmm: &Vmm) -> Result<(), TestCaseError> {
    let book = vmm.book();
    for (start, len) in book.mapped.keys() {
        prop_assert!(WINDOW.start <= *start && start + len <= WINDOW.end, "{start:#x}+{len:#x}");
        for trap in &book.trapped {
            let apart =
                trap.space != Space::Memory || trap.range.end <= *start || start + len <= trap.range.start;
            prop_assert!(apart, "{trap:?} lies on the mapping at {start:#x}");
        }
    }
    for (start, len) in book.readable.keys() {
        prop_assert!(WINDOW.start <= *start && start + len <= WINDOW.end, "{start:#x}+{len:#x}");
        let is_behind = |trap: &&Trap| trap.space == Space::Memory && trap.range == (*start..start + len);
        prop_assert_eq!(book.trapped.iter().filter(is_behind).count(), 1, "behind {:#x}+{:#x}", start, len);
    }
    Ok(())
}

/// Compares what the guest reads without an exit with what a read gives that exits.
fn compare(vmm: &Vmm, seen: &Seen) -> Result<(), TestCaseError> {
    vmm.turn();
    let places: Vec<(u64, u64)> = {
        let book = vmm.book();
        let structure = |trap: &Trap| STRUCTURES.iter().find(|(offset, _)| *offset == trap.offset).copied();
        let is_read = |trap: &&Trap| book.readable.keys().any(|(start, _)| *start == trap.range.start);
        let read = book.trapped.iter().filter(is_read);
        read.map(|trap| (trap.range.start, structure(trap).unwrap().1)).collect()
    };
    for (start, len) in places {
        for at in (start..start + len).step_by(4) {
            let (mut here, mut trapped) = ([0; 4], [0; 4]);
            vmm.read(at, &mut here);
            vmm.read_trapped(at, &mut trapped);
            prop_assert_eq!(here, trapped, "at {:#x}", at);
            if len < 0x1000 && here != [0; 4] {
                seen.pending.fetch_add(1, Ordering::Relaxed);
            }
        }
        seen.pages.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What was compared in all cases, which is not to be nothing.
#[derive(Default)]
struct Seen {
    pages: AtomicUsize,
    /// Words of pending bits of which some were set.
    pending: AtomicUsize,
}

/// Where a function's BAR is, as its registers have it.
fn base(function: &Attached, register: u16) -> u64 {
    let (mut low, mut high) = ([0; 4], [0; 4]);
    function.config().config_read(register, &mut low);
    if register == 0x20 {
        function.config().config_read(register + 4, &mut high);
    }
    u64::from(u32::from_le_bytes(low) & !0xf) | u64::from(u32::from_le_bytes(high)) << 32
}

#[test]
fn nothing_a_guest_writes_leads_outside() {
    let seen = Seen::default();
    let mut runner =
        TestRunner::new(ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(96) });
    let result = runner.run(&prop::collection::vec(step(), 0..200), |steps| play(steps, &seen));
    if let Err(error) = result {
        panic!("{error}\n{runner}");
    }
    let Seen { pages, pending } = seen;
    let (pages, pending) = (pages.into_inner(), pending.into_inner());
    assert!(pages > 100 && pending > 5, "{pages} pages were compared, {pending} words had pending bits");
}

fn play(steps: Vec<Step>, seen: &Seen) -> Result<(), TestCaseError> {
    let vmm = Vmm::new();
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let windows = Arc::new(Windows { memory: vec![WINDOW], io: vec![0x1000..0x1_0000] });
    let functions: Vec<Attached> = (0..2)
        .map(|number| {
            let slot = Slot::new(0, 8, number).unwrap();
            let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
            let shape = Shape { multi_function: true, ..Shape::default() };
            Attached::new(Fresh::one(host).unwrap(), slot, shape, space.clone(), windows.clone()).unwrap()
        })
        .collect();
    let config = |function: usize, offset: u16, data: &[u8]| {
        functions[function].config().config_write(offset, data);
    };
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Bar { function, register, value } => config(function, register, &value.to_le_bytes()),
            Step::Command { function, value } => config(function, 0x04, &value.to_le_bytes()),
            Step::Config { function, offset, value } => config(function, offset, &value.to_le_bytes()),
            Step::Memory { address, value } => {
                vmm.write(address, &value.to_le_bytes());
                vmm.read(address, &mut [0; 4]);
            }
            Step::Structures { function, place } => {
                config(function, 0x20, &(WINDOW.start as u32 + place * 0x1_0000).to_le_bytes());
                config(function, 0x24, &[0; 4]);
                config(function, 0x04, &[7, 0]);
                config(function, 0x73, &[0x80]);
            }
            Step::Msix { function, control } => config(function, 0x73, &[control]),
            Step::Table { function, offset, len, value } => {
                let at = base(&functions[function], 0x20).wrapping_add(offset);
                vmm.write(at, &value.to_le_bytes()[..len]);
            }
            Step::Vector { function, vector, masked } => {
                let at = base(&functions[function], 0x20).wrapping_add(vector * 16);
                vmm.write(at, &0xfee0_0000u64.to_le_bytes());
                vmm.write(at.wrapping_add(8), &((0x40 + vector) | u64::from(masked) << 32).to_le_bytes());
            }
            Step::Trigger { function, vector } => {
                // BAR 0 may answer nowhere: the function raises it all the same.
                functions[function].host().bar_write(0, 0x48, &vector.to_le_bytes()).unwrap();
            }
            Step::Reset { function } => functions[function].reset(),
        }
        check(&vmm)?;
        if number % EVERY == EVERY - 1 {
            compare(&vmm, seen)?;
        }
    }
    compare(&vmm, seen)?;
    drop(functions);
    prop_assert!(vmm.is_empty(), "something is left");
    Ok(())
}
