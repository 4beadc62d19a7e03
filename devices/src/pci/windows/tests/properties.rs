//! Plans for random functions in random ranges.

use proptest::prelude::*;

use super::check::{check, check_with_ports};
use super::*;
use crate::pci::windows;

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
        if let Ok(plan) = windows::plan(&functions, &ports, &pc()) {
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
