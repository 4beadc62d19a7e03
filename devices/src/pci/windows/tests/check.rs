//! What holds for any plan: each BAR is in a window that it can be in, aligned and alone, and windows are apart.

use super::*;

/// [`check_with_ports`] without ports.
pub(super) fn check(functions: &[FunctionBars], available: &Available, plan: &Plan) {
    check_with_ports(functions, &[], available, plan);
}

/// What any plan must be.
pub(super) fn check_with_ports(
    functions: &[FunctionBars],
    ports: &[PortRoom],
    available: &Available,
    plan: &Plan,
) {
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
