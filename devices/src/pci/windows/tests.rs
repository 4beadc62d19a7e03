use super::*;
use passthru::pci::bar::BarKind;
use proptest::prelude::*;

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

fn check(functions: &[FunctionBars], available: &Available, plan: &Plan) {
    check_with_ports(functions, &[], available, plan);
}

/// What any plan must be.
fn check_with_ports(functions: &[FunctionBars], ports: &[PortRoom], available: &Available, plan: &Plan) {
    check_ports(ports, plan);
    let mut taken: Vec<(bool, Range<u64>, PlacedBar)> = Vec::new();
    assert_eq!(plan.bars().len(), functions.iter().map(|function| function.bars.len()).sum::<usize>());
    for function in functions {
        for bar in &function.bars {
            let placed = plan.bars_of(function.slot).iter().find(|placed| placed.index == bar.index).unwrap();
            let bus = function.slot.bus();
            let behind = plan.ports().iter().find(|(its, _)| *its == bus).map(|(_, windows)| windows);
            let root = if behind.is_some() { 0 } else { bus };
            let windows = plan.buses().iter().find(|windows| windows.bus == root).unwrap();
            let window = match placed.window {
                WindowKind::Memory32 => &windows.memory32,
                WindowKind::Memory64 => &windows.memory64,
                WindowKind::Io => &windows.io,
            };
            let window = window.clone().unwrap();
            assert_eq!(placed.window == WindowKind::Io, bar.kind == IO);
            assert!(placed.window != WindowKind::Memory64 || bar.kind.is_64bit(), "{placed:x?}");
            let extent = if bar.kind == IO { bar.size } else { bar.size.max(4 * KIB) };
            assert_eq!((placed.size, placed.address % extent), (bar.size, 0), "{placed:x?}");
            let range = placed.address..placed.address + extent;
            assert!(window.start <= range.start && range.end <= window.end, "{placed:x?} {window:x?}");
            if let Some(port) = behind {
                let window = match placed.window {
                    WindowKind::Memory32 => &port.memory,
                    WindowKind::Memory64 => &port.prefetchable,
                    WindowKind::Io => &port.io,
                };
                let window = window.clone().unwrap();
                assert!(window.start <= range.start && range.end <= window.end, "{placed:x?} {window:x?}");
                let prefetchable = matches!(bar.kind, BarKind::Memory64 { prefetchable: true });
                assert_eq!(placed.window == WindowKind::Memory64, prefetchable, "{placed:x?}");
            }
            taken.push((bar.kind == IO, range, *placed));
        }
    }
    taken.sort_by_key(|(io, range, _)| (*io, range.start));
    for pair in taken.windows(2) {
        let ((io1, range1, bar1), (io2, range2, bar2)) = (&pair[0], &pair[1]);
        assert!(io1 != io2 || range1.end <= range2.start, "{bar1:x?} overlaps {bar2:x?}");
    }
    type Window = fn(&BusWindows) -> &Option<Range<u64>>;
    let kinds: [Window; 3] =
        [|windows| &windows.memory32, |windows| &windows.memory64, |windows| &windows.io];
    for (kind, whole) in kinds.into_iter().zip([&available.memory32, &available.memory64, &available.io]) {
        let holes = if whole == &available.io { &[][..] } else { &available.excluded };
        let mut windows: Vec<Range<u64>> =
            plan.buses().iter().filter_map(|bus| kind(bus).clone()).chain(holes.iter().cloned()).collect();
        windows.sort_by_key(|window| window.start);
        assert!(windows.windows(2).all(|pair| pair[0].end <= pair[1].start), "{windows:x?}");
        for window in plan.buses().iter().filter_map(|bus| kind(bus).as_ref()) {
            assert!(
                !window.is_empty() && whole.start <= window.start && window.end <= whole.end,
                "{window:x?}"
            );
        }
    }
}

/// Windows of ports are where bridges can have them, have the room that was asked for, and are inside bus 0's, apart
/// from each other. (That BARs of bus 0 are apart from them follows from theirs being in windows of their own.)
fn check_ports(ports: &[PortRoom], plan: &Plan) {
    let buses: Vec<u8> = plan.ports().iter().map(|(bus, _)| *bus).collect();
    let mut wanted: Vec<u8> = ports.iter().map(|port| port.bus).collect();
    wanted.sort_unstable();
    assert_eq!(buses, wanted);
    let bus_0 = plan.buses().iter().find(|windows| windows.bus == 0).unwrap();
    let mut all: Vec<(WindowKind, Range<u64>)> = Vec::new();
    for room in ports {
        let (_, windows) = plan.ports().iter().find(|(bus, _)| *bus == room.bus).unwrap();
        for (kind, window, root, least, unit) in [
            (WindowKind::Io, &windows.io, &bus_0.io, 0, 4 * KIB),
            (WindowKind::Memory32, &windows.memory, &bus_0.memory32, room.memory, MIB),
            (WindowKind::Memory64, &windows.prefetchable, &bus_0.memory64, room.prefetchable, MIB),
        ] {
            let Some(window) = window else {
                assert_eq!(least, 0, "{kind} of bus {}", room.bus);
                continue;
            };
            let root = root.as_ref().unwrap();
            assert!(root.start <= window.start && window.end <= root.end, "{window:x?} {root:x?}");
            assert!(window.end - window.start >= least && !window.is_empty());
            assert_eq!((window.start % unit, window.end % unit), (0, 0), "{window:x?}");
            assert!(kind == WindowKind::Memory64 || window.end <= 1 << 32);
            all.push((kind, window.clone()));
        }
    }
    all.sort_by_key(|(kind, window)| (*kind, window.start));
    assert!(
        all.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1.end <= pair[1].1.start),
        "{all:x?}"
    );
    for bar in plan.bars() {
        let foreign = |(bus, windows): &(u8, PortWindows)| {
            let window = match bar.window {
                WindowKind::Io => &windows.io,
                WindowKind::Memory32 => &windows.memory,
                WindowKind::Memory64 => &windows.prefetchable,
            };
            let overlaps =
                |window: &Range<u64>| bar.address < window.end && window.start < bar.address + bar.size;
            *bus != bar.slot.bus() && window.as_ref().is_some_and(overlaps)
        };
        assert!(!plan.ports().iter().any(foreign), "{bar:x?}");
    }
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

const ROOM: PortRoom = PortRoom { bus: 1, memory: 64 * MIB, prefetchable: GIB };

fn planned_with_ports(functions: &[FunctionBars], ports: &[PortRoom]) -> Plan {
    let plan = super::plan(functions, ports, &pc()).unwrap();
    check_with_ports(functions, ports, &pc(), &plan);
    plan
}

#[test]
fn ports_have_windows_inside_bus_0s() {
    let functions = [
        function("1:0:0", &[(0, MEM64, 16 * KIB), (4, PREF64, 8 * GIB)]),
        function("1:0:1", &[(0, MEM32, 128 * KIB), (2, IO, 32), (3, PREF64, MIB)]),
        function("0:8:0", &[(0, MEM64, 16 * KIB), (2, IO, 32)]),
        function("4:0:0", &[(0, MEM32, 4 * KIB)]),
    ];
    let plan = planned_with_ports(&functions, &[PortRoom { bus: 2, ..ROOM }, ROOM]);
    let low = Some(0xc400_0000..0xc800_0000);
    // Bus 0 has the larger piece, which is above the hole.
    let high = Some(0x100_0000_0000..0x102_0010_0000);
    assert_eq!(
        plan.ports()[0],
        (1, PortWindows { io: Some(0x1000..0x2000), memory: low, prefetchable: high })
    );
    assert_eq!(
        plan.ports()[1],
        (
            2,
            PortWindows {
                io: None,
                memory: Some(0xc800_0000..0xcc00_0000),
                prefetchable: Some(0x102_4000_0000..0x102_8000_0000)
            }
        )
    );
    for (text, index, address) in [
        ("1:0:0", 0, 0xc402_0000),
        ("1:0:0", 4, 0x100_0000_0000),
        ("1:0:1", 0, 0xc400_0000),
        ("1:0:1", 2, 0x1000),
        ("1:0:1", 3, 0x102_0000_0000),
        ("0:8:0", 0, 0xc010_0000),
        ("0:8:0", 2, 0x2000),
        ("4:0:0", 0, 0xc000_0000),
    ] {
        assert_eq!(plan.address(slot(text), index), Some(address), "{text} BAR {index}");
    }
    assert_eq!(plan.buses().iter().map(|windows| windows.bus).collect::<Vec<_>>(), [0, 4]);
}

#[test]
fn windows_of_ports_grow_with_what_is_behind_them() {
    for (bars, memory, prefetchable) in [
        (&[][..], 64 * MIB, GIB),
        (&[(MEM32, 64 * MIB), (MEM64, 4 * KIB)], 65 * MIB, GIB),
        (&[(PREF64, 32 * GIB), (MEM32, 128 * MIB)], 128 * MIB, 32 * GIB),
        (&[(PREF64, GIB), (PREF64, 16)], 64 * MIB, GIB + MIB),
    ] {
        let bars: Vec<_> = bars.iter().zip(0..).map(|((kind, size), index)| (index, *kind, *size)).collect();
        let plan = planned_with_ports(&[function("1:0:0", &bars)], &[ROOM]);
        let size = |window: &Option<Range<u64>>| window.as_ref().map(|window| window.end - window.start);
        let windows = &plan.ports()[0].1;
        assert_eq!((size(&windows.memory), size(&windows.prefetchable)), (Some(memory), Some(prefetchable)));
    }
    let nothing = PortRoom { bus: 1, memory: 0, prefetchable: 0 };
    assert_eq!(planned_with_ports(&[], &[nothing]).ports(), [(1, PortWindows::default())]);
}

#[test]
fn ports_without_room_are_named() {
    let ports: Vec<PortRoom> = (1..=9).map(|bus| PortRoom { bus, ..ROOM }).collect();
    assert!(super::plan(&[], &ports[..8], &pc()).is_ok());
    let (window, range) = (WindowKind::Memory32, pc().memory32);
    assert_eq!(
        super::plan(&[], &ports, &pc()),
        Err(PlanError::NoRoomForPort { bus: 9, size: 64 * MIB, window, range: range.clone(), left: 0 })
    );
    // What is not prefetchable cannot go above.
    let functions = [function("1:0:0", &[(0, MEM64, GIB)])];
    let error = super::plan(&functions, &[ROOM], &pc()).unwrap_err();
    assert_eq!(error, PlanError::NoRoomForPort { bus: 1, size: GIB, window, range, left: 512 * MIB });
    assert_eq!(
        error.to_string(),
        "bus 1: no place for the 1 GiB that its root port forwards in the 32-bit memory window 0xc0000000-0xdfffffff: \
         512 MiB of 512 MiB left; give root ports less room, or pass through fewer or smaller functions (behind a \
         port, BARs that are not prefetchable must be below 4 GiB)"
    );
    let huge = [function("1:0:0", &[(0, PREF64, 1 << 63), (2, PREF64, 1 << 63)])];
    let error = super::plan(&huge, &[ROOM], &pc()).unwrap_err();
    assert!(matches!(error, PlanError::NoRoomForPort { window: WindowKind::Memory64, .. }), "{error:?}");
}

fn any_bar() -> impl Strategy<Value = (BarKind, u64)> {
    prop_oneof![
        (0..10u32).prop_map(|shift| (IO, 4 << shift)),
        (4..26u32, any::<bool>())
            .prop_map(|(shift, prefetchable)| (BarKind::Memory32 { prefetchable }, 1 << shift)),
        (4..34u32, any::<bool>())
            .prop_map(|(shift, prefetchable)| (BarKind::Memory64 { prefetchable }, 1 << shift)),
    ]
}

/// Functions on few buses, so that several share one.
fn any_functions() -> impl Strategy<Value = Vec<FunctionBars>> {
    let place = (prop_oneof![Just(0u8), Just(1), Just(3), Just(200)], 1..=255u8);
    let bars = prop::collection::vec(any_bar(), 0..4);
    prop::collection::btree_map(place, bars, 0..24).prop_map(|functions| {
        let function = |((bus, devfn), bars): ((u8, u8), Vec<(BarKind, u64)>)| FunctionBars {
            slot: Slot::from_requester_id(u16::from_be_bytes([bus, devfn])),
            bars: (0u8..).zip(bars).map(|(index, (kind, size))| Bar { index, kind, size }).collect(),
        };
        functions.into_iter().map(function).collect()
    })
}

fn any_range(unit: u64, most: u64) -> impl Strategy<Value = Range<u64>> {
    (0..most, 0..most).prop_map(move |(start, length)| start * unit..(start + length) * unit)
}

proptest! {
    #[test]
    fn plans_for_a_pc_hold(functions in any_functions()) {
        if let Ok(plan) = plan(&functions, &pc()) {
            check(&functions, &pc(), &plan);
        }
    }

    #[test]
    fn plans_with_ports_hold(
        functions in any_functions(),
        behind in prop::collection::vec((1..4u8, 0..8u8, prop::collection::vec(any_bar(), 0..4)), 0..4),
        ports in prop::collection::btree_map(1..=15u8, (0..70u64, 0..3000u64), 0..5),
    ) {
        let mut ports: Vec<PortRoom> = ports
            .into_iter()
            .map(|(bus, (low, high))| PortRoom { bus, memory: low * MIB, prefetchable: high * MIB })
            .collect();
        let mut functions = functions;
        for (bus, number, bars) in behind {
            let slot = Slot::new(bus, 0, number).unwrap();
            if functions.iter().any(|function| function.slot.bus() == bus) {
                continue;
            }
            if !ports.iter().any(|port| port.bus == bus) {
                ports.push(PortRoom { bus, memory: 0, prefetchable: 0 });
            }
            let bars = (0u8..).zip(bars).map(|(index, (kind, size))| Bar { index, kind, size }).collect();
            functions.push(FunctionBars { slot, bars });
        }
        // Bus 3 has devices other than 0, and so is none of a port.
        ports.retain(|port| port.bus != 3);
        if let Ok(plan) = super::plan(&functions, &ports, &pc()) {
            check_with_ports(&functions, &ports, &pc(), &plan);
        }
    }

    #[test]
    fn plans_in_odd_ranges_hold(
        functions in any_functions(),
        memory32 in any_range(4 * KIB, 1 << 19),
        memory64 in any_range(4 * KIB, 1 << 30),
        io in any_range(1, 1 << 15),
        excluded in prop::collection::vec(any_range(64 * MIB, 64), 0..3),
    ) {
        // Holes are disjoint from each other where `check` compares windows with them.
        let excluded: Vec<_> = excluded.into_iter().take(1).filter(|hole| !hole.is_empty()).collect();
        let memory64 = memory64.start + (1 << 32)..memory64.end + (1 << 32);
        let available = Available { memory32, memory64, io, excluded };
        match plan(&functions, &available) {
            Ok(plan) => check(&functions, &available, &plan),
            Err(error) => {
                // What is refused for itself is really too large for what is there.
                let PlanError::NoRoom { size, range, left, .. } = error else { panic!("{error}") };
                prop_assert!(left <= range.end - range.start && size > 0);
            }
        }
    }

    #[test]
    fn the_order_of_functions_does_not_matter(
        (functions, shuffled) in
            any_functions().prop_flat_map(|functions| (Just(functions.clone()), Just(functions).prop_shuffle())),
    ) {
        prop_assert_eq!(plan(&functions, &pc()), plan(&shuffled, &pc()));
    }

    /// A bus whose BARs are powers of two needs no more than their sum, from an aligned start.
    #[test]
    fn bars_that_fill_the_window_fit(sizes in prop::collection::vec(12..26u32, 1..32)) {
        let bars: Vec<_> = sizes.iter().map(|shift| 1u64 << shift).collect();
        let total: u64 = bars.iter().sum();
        let functions: Vec<_> = bars
            .iter()
            .zip(1u16..)
            .map(|(size, id)| FunctionBars {
                slot: Slot::from_requester_id(id),
                bars: vec![Bar { index: 0, kind: MEM32, size: *size }],
            })
            .collect();
        let exact = Available { memory32: 1 << 30..(1 << 30) + total, memory64: 0..0, ..pc() };
        check(&functions, &exact, &plan(&functions, &exact).unwrap());
        let less = Available { memory32: 1 << 30..(1 << 30) + total - 4 * KIB, ..exact };
        prop_assert!(plan(&functions, &less).is_err());
    }
}
