//! Windows of root ports.

use super::check::check_with_ports;
use super::*;
use crate::pci::windows;

const ROOM: PortRoom = PortRoom { bus: 1, memory: 64 * MIB, prefetchable: GIB };

fn planned_with_ports(functions: &[FunctionBars], ports: &[PortRoom]) -> Plan {
    let plan = windows::plan(functions, ports, &pc()).unwrap();
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
    assert!(windows::plan(&[], &ports[..8], &pc()).is_ok());
    let (window, range) = (WindowKind::Memory32, pc().memory32);
    assert_eq!(
        windows::plan(&[], &ports, &pc()),
        Err(PlanError::NoRoomForPort { bus: 9, size: 64 * MIB, window, range: range.clone(), left: 0 })
    );
    // What is not prefetchable cannot go above.
    let functions = [function("1:0:0", &[(0, MEM64, GIB)])];
    let error = windows::plan(&functions, &[ROOM], &pc()).unwrap_err();
    assert_eq!(error, PlanError::NoRoomForPort { bus: 1, size: GIB, window, range, left: 512 * MIB });
    assert_eq!(
        error.to_string(),
        "bus 1: no place for the 1 GiB that its root port forwards in the 32-bit memory window 0xc0000000-0xdfffffff: \
         512 MiB of 512 MiB left; give root ports less room, or pass through fewer or smaller functions (behind a \
         port, BARs that are not prefetchable must be below 4 GiB)"
    );
    let huge = [function("1:0:0", &[(0, PREF64, 1 << 63), (2, PREF64, 1 << 63)])];
    let error = windows::plan(&huge, &[ROOM], &pc()).unwrap_err();
    assert!(matches!(error, PlanError::NoRoomForPort { window: WindowKind::Memory64, .. }), "{error:?}");
}
