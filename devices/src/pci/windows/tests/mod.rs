//! Plans for given functions, BAR by BAR.

mod check;
mod ports;
mod properties;

use passthru::pci::bar::BarKind;

use super::*;
use check::check;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const IO: BarKind = BarKind::Io;
const MEM32: BarKind = BarKind::Memory32 { prefetchable: false };
const MEM64: BarKind = BarKind::Memory64 { prefetchable: false };
const PREF64: BarKind = BarKind::Memory64 { prefetchable: true };

const HYPER_TRANSPORT: Range<u64> = 0xfd_0000_0000..0x100_0000_0000;

fn pc() -> Available {
    Available {
        memory32: 0xc000_0000..0xe000_0000,
        memory64: 0x1_4000_0000..1 << 46,
        io: 0x1000..0x1_0000,
        excluded: vec![HYPER_TRANSPORT],
    }
}

fn slot(text: &str) -> Slot {
    text.parse().unwrap()
}

fn function(text: &str, bars: &[(u8, BarKind, u64)]) -> FunctionBars {
    let bars = bars.iter().map(|&(index, kind, size)| Bar { index, kind, size }).collect();
    FunctionBars { slot: slot(text), bars }
}

fn plan(functions: &[FunctionBars], available: &Available) -> Result<Plan, PlanError> {
    super::plan(functions, &[], available)
}

fn planned(functions: &[FunctionBars], available: &Available) -> Plan {
    let plan = plan(functions, available).unwrap();
    check(functions, available, &plan);
    plan
}

#[test]
fn without_functions_bus_0_has_everything() {
    let plan = planned(&[], &pc());
    let bus_0 = BusWindows {
        bus: 0,
        memory32: Some(0xc000_0000..0xe000_0000),
        // The larger piece of the two around the hole.
        memory64: Some(HYPER_TRANSPORT.end..1 << 46),
        io: Some(0x1000..0x1_0000),
    };
    assert_eq!(plan.buses(), [bus_0]);
}

#[test]
fn a_drive_and_a_nic_on_bus_0() {
    let functions = [
        function("0:8:0", &[(0, MEM64, 16 * KIB)]),
        function("0:8:1", &[(0, MEM32, 128 * KIB), (1, MEM32, 128 * KIB), (2, IO, 32), (3, MEM32, 16 * KIB)]),
    ];
    let plan = planned(&functions, &pc());
    for (text, index, address) in [
        ("0:8:0", 0, 0xc004_0000),
        ("0:8:1", 0, 0xc000_0000),
        ("0:8:1", 1, 0xc002_0000),
        ("0:8:1", 2, 0x1000),
        ("0:8:1", 3, 0xc004_4000),
    ] {
        assert_eq!(plan.address(slot(text), index), Some(address), "{text} BAR {index}");
    }
    assert_eq!(plan.address(slot("0:8:0"), 1), None);
    assert_eq!(plan.address(slot("0:8:2"), 0), None);
}

#[test]
fn other_buses_have_windows_of_their_own() {
    let functions = [
        function("3:0:0", &[(0, MEM64, 16 * KIB)]),
        function("3:5:0", &[(0, MEM32, 4 * MIB), (2, IO, 256)]),
        function("7:0:0", &[(0, PREF64, GIB)]),
        function("9:0:0", &[]),
        function("0:1:0", &[(0, MEM32, 4 * KIB)]),
    ];
    let plan = planned(&functions, &pc());
    let windows = |bus, memory32, memory64, io| BusWindows { bus, memory32, memory64, io };
    assert_eq!(
        plan.buses(),
        [
            windows(
                0,
                Some(0xc090_0000..0xe000_0000),
                Some(HYPER_TRANSPORT.end..1 << 46),
                Some(0x2000..0x1_0000)
            ),
            windows(3, Some(0xc000_0000..0xc090_0000), None, Some(0x1000..0x2000)),
            windows(7, None, Some(0x1_4000_0000..0x1_c000_0000), None),
            windows(9, None, None, None),
        ]
    );
    assert_eq!(plan.address(slot("3:5:0"), 0), Some(0xc000_0000));
    assert_eq!(plan.address(slot("3:0:0"), 0), Some(0xc040_0000));
    assert_eq!(plan.address(slot("0:1:0"), 0), Some(0xc090_0000));
}

#[test]
fn small_memory_bars_have_pages_of_their_own() {
    let functions = [
        function("0:1:0", &[(0, MEM32, 16), (1, MEM32, 256), (2, IO, 4), (3, IO, 8)]),
        function("0:2:0", &[(0, MEM64, 2 * KIB)]),
    ];
    let plan = planned(&functions, &pc());
    let addresses: Vec<u64> = plan.bars().iter().map(|bar| bar.address).collect();
    assert_eq!(addresses, [0xc000_2000, 0xc000_1000, 0x1008, 0x1000, 0xc000_0000]);
}

#[test]
fn which_64_bit_bars_go_above() {
    let high = WindowKind::Memory64;
    let low = WindowKind::Memory32;
    // BARs of 0:1:0 on, and where they are to be.
    for (bars, windows) in [
        (&[(MEM64, 64 * MIB)][..], &[low][..]),
        (&[(MEM64, 128 * MIB)], &[high]),
        (&[(PREF64, 128 * MIB), (PREF64, 16 * KIB)], &[high, low]),
        (&[(MEM32, 256 * MIB), (MEM64, 64 * MIB), (MEM64, 64 * MIB)], &[low, low, low]),
        (&[(MEM32, 256 * MIB), (MEM32, 128 * MIB), (MEM64, 64 * MIB), (MEM64, 64 * MIB)], &[low; 4]),
        // What does not fit: the largest goes, the others stay.
        (
            &[
                (MEM32, 256 * MIB),
                (MEM32, 128 * MIB),
                (MEM64, 64 * MIB),
                (MEM64, 32 * MIB),
                (MEM32, 64 * MIB),
            ],
            &[low, low, high, low, low],
        ),
        (
            &[
                (MEM32, 256 * MIB),
                (MEM32, 128 * MIB),
                (MEM32, 64 * MIB),
                (MEM64, 64 * MIB),
                (MEM64, 64 * MIB),
                (MEM64, 64 * MIB),
                (MEM64, 64 * MIB),
            ],
            &[low, low, low, high, high, high, low],
        ),
        (&[(MEM32, 512 * MIB), (MEM64, 64 * MIB), (MEM64, 4 * KIB)], &[low, high, high]),
    ] {
        let functions: Vec<FunctionBars> = bars
            .iter()
            .zip(1..)
            .map(|((kind, size), device)| function(&format!("0:{device}:0"), &[(0, *kind, *size)]))
            .collect();
        let plan = planned(&functions, &pc());
        let got: Vec<WindowKind> = plan.bars().iter().map(|bar| bar.window).collect();
        assert_eq!(got, windows, "{bars:x?}");
    }
}

#[test]
fn large_bars_go_below_when_there_is_no_room_above() {
    let functions = [function("0:1:0", &[(0, PREF64, 256 * MIB), (2, MEM64, 16 * KIB)])];
    for memory64 in [0..0, 0x1_0000_0000..0x1_0800_0000] {
        let plan = planned(&functions, &Available { memory64, ..pc() });
        assert!(plan.bars().iter().all(|bar| bar.window == WindowKind::Memory32));
    }
}

#[test]
fn reserved_ranges_stay_free() {
    let mut available = pc();
    available.memory64 = 0xfc_0000_0000..0x104_0000_0000;
    let functions = [
        function("1:0:0", &[(0, PREF64, 4 * GIB)]),
        function("2:0:0", &[(0, PREF64, 2 * GIB)]),
        function("0:1:0", &[(0, PREF64, GIB)]),
    ];
    let plan = planned(&functions, &available);
    // Twice 4 GiB do not fit below the hole, and bus 0 has the larger of the two rests.
    let windows: Vec<_> = plan.buses().iter().map(|bus| bus.memory64.clone().unwrap()).collect();
    assert_eq!(
        windows,
        [0x102_0000_0000..0x104_0000_0000, 0x100_0000_0000..0x102_0000_0000, 0xfc_0000_0000..0xfd_0000_0000,]
    );
}

#[test]
fn windows_shrink_to_the_need_when_there_is_no_room_for_twice() {
    let functions = [
        function("1:0:0", &[(0, MEM32, 128 * MIB)]),
        function("2:0:0", &[(0, MEM32, 128 * MIB)]),
        function("0:1:0", &[(0, MEM32, 256 * MIB)]),
    ];
    let plan = planned(&functions, &pc());
    let sizes: Vec<u64> =
        plan.buses().iter().filter_map(|bus| bus.memory32.clone()).map(|w| w.end - w.start).collect();
    assert_eq!(sizes, [256 * MIB, 128 * MIB, 128 * MIB]);
    // Nothing is left for bus 0, and it needs nothing.
    let functions = [function("1:0:0", &[(0, MEM32, 512 * MIB)])];
    assert_eq!(planned(&functions, &pc()).buses()[0].memory32, None);
}

#[test]
fn the_window_with_the_largest_alignment_comes_first() {
    let functions = [
        function("1:0:0", &[(0, MEM32, MIB)]),
        function("2:0:0", &[(0, MEM32, 128 * MIB), (1, MEM32, 256 * MIB)]),
    ];
    let plan = planned(&functions, &pc());
    assert_eq!(plan.address(slot("2:0:0"), 1), Some(0xc000_0000));
    assert_eq!(plan.address(slot("1:0:0"), 0), Some(0xd800_0000));
}

#[test]
fn windows_begin_and_end_at_their_granularity() {
    let available = Available { memory32: 0xc008_0000..0xe000_0000, io: 0x1100..0x1_0000, ..pc() };
    let functions = [function("1:0:0", &[(0, MEM32, 4 * KIB), (1, IO, 16)])];
    let plan = planned(&functions, &available);
    let bus_1 = &plan.buses()[1];
    assert_eq!((&bus_1.memory32, &bus_1.io), (&Some(0xc010_0000..0xc020_0000), &Some(0x2000..0x3000)));
}

#[test]
fn what_does_not_fit_is_named() {
    let no_room = |text, bar, size, window, left| {
        let range = match window {
            WindowKind::Memory32 => pc().memory32,
            WindowKind::Memory64 => pc().memory64,
            WindowKind::Io => pc().io,
        };
        PlanError::NoRoom { slot: slot(text), bar, size, window, range, left }
    };
    for (functions, error) in [
        (
            vec![function("0:1:0", &[(0, MEM32, GIB)])],
            no_room("0:1:0", 0, GIB, WindowKind::Memory32, 512 * MIB),
        ),
        (
            vec![function("0:1:0", &[(0, MEM32, 256 * MIB)]), function("0:2:0", &[(1, MEM32, 512 * MIB)])],
            no_room("0:1:0", 0, 256 * MIB, WindowKind::Memory32, 0),
        ),
        (
            vec![function("3:0:0", &[(0, MEM32, 256 * MIB), (1, MEM32, 256 * MIB), (5, MEM32, 4 * KIB)])],
            no_room("3:0:0", 5, 4 * KIB, WindowKind::Memory32, 0),
        ),
        (
            vec![function("0:1:0", &[(4, IO, 32 * KIB)]), function("5:1:0", &[(4, IO, 32 * KIB)])],
            no_room("0:1:0", 4, 32 * KIB, WindowKind::Io, 28 * KIB),
        ),
        (
            vec![function("0:1:0", &[(0, PREF64, 1 << 46)])],
            no_room("0:1:0", 0, 1 << 46, WindowKind::Memory64, (1 << 46) - (1 << 40)),
        ),
        (
            vec![function("0:1:0", &[(0, PREF64, 1 << 62)]), function("2:1:0", &[(0, PREF64, 1 << 63)])],
            no_room("2:1:0", 0, 1 << 63, WindowKind::Memory64, (1 << 46) - (3 << 32) - 0x1_4000_0000),
        ),
        (
            vec![function("0:1:0", &[(3, MEM32, 0x3000)])],
            PlanError::Size { slot: slot("0:1:0"), bar: 3, size: 0x3000 },
        ),
        (vec![function("0:1:0", &[(3, IO, 0)])], PlanError::Size { slot: slot("0:1:0"), bar: 3, size: 0 }),
    ] {
        assert_eq!(plan(&functions, &pc()), Err(error), "{functions:x?}");
    }
}

#[test]
fn errors_in_words() {
    let functions = [function("0:8:0", &[(2, MEM32, GIB)])];
    assert_eq!(
        plan(&functions, &pc()).unwrap_err().to_string(),
        "slot 0:8:0: no place for BAR 2 (1 GiB) in the 32-bit memory window 0xc0000000-0xdfffffff: 512 MiB of \
         512 MiB left; pass through fewer or smaller functions"
    );
    let functions = [function("0:8:0", &[(2, MEM64, GIB)])];
    assert_eq!(
        plan(&functions, &Available { memory64: 0..0, ..pc() }).unwrap_err().to_string(),
        "slot 0:8:0: no place for BAR 2 (1 GiB) in the 64-bit memory window (there is none): 0 bytes of 0 bytes left; \
         pass through fewer or smaller functions"
    );
}
