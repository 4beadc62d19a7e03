//! The kernel of 2018, which unmaps nothing and has no way to turn MSI-X off as a whole.

use passthru::host::ppt::{Interface as Found, Reason};
use passthru::host::*;
use passthru::pci::Space;
use passthru::ports::MsiMessage;
use ppt_over_vfio::{Interface, Options};

use crate::guest::*;
use crate::world::*;

const OLD: Options = Options { interface: Interface::Year2018, iommu: true };
const MEMORY_SIZE: u64 = 0x10_0000;

#[test]
fn what_it_can_do_is_told() {
    let world = World::new(OLD);
    let function = world.function();
    assert_eq!(function.vm().interface(), Found::First);
    assert!(!function.description().bars[4].accessible, "no BAR can be mapped here");
    function.bar_read(4, 0x8100, &mut [0; 4]).unwrap_err();
    drop(function);
    world.assert_free();
}

#[test]
fn bars_stay_mapped_where_the_guest_has_them_first() {
    let guest = Guest::started(OLD);
    let before = guest.mapped();
    assert_eq!(before.len(), 3);
    let requests = guest.world.take_requests();
    assert_eq!(requests.iter().filter(|request| **request == MAP).count(), 4);
    for _ in 0..3 {
        guest.config_write(0x04, &[0x01, 0]);
        guest.config_write(0x04, &[0x07, 0]);
        assert_eq!(guest.mapped(), before);
        assert_eq!(&guest.read::<4>(REGISTERS), b"SLTP");
    }
    let requests = guest.world.take_requests();
    assert!(!requests.contains(&MAP) && !requests.contains(&UNMAP), "{requests:x?}");
    guest.detach().assert_free();
}

#[test]
fn a_bar_that_moves_is_at_both_addresses_until_it_is_detached() {
    let guest = Guest::started(OLD);
    let moved = |to: u64| {
        guest.config_write(0x04, &[0, 0]);
        guest.config_write(0x18, &(to as u32).to_le_bytes());
        guest.config_write(0x04, &[0x07, 0]);
        let mapped = guest.mapped().into_iter();
        mapped.filter(|(_, len)| *len == MEMORY_SIZE).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let places = [1, 2, 3, 4].map(|n| MEMORY + n * 0x100_0000);
    assert_eq!(moved(places[0]), [MEMORY, places[0]]);
    assert_eq!(moved(MEMORY), [MEMORY, places[0]]);
    assert_eq!(moved(places[1]), [MEMORY, places[0], places[1]]);
    assert_eq!(moved(places[2]).len(), 4, "seven with those of the other BARs");
    // From here on there is no room for another one: it is trapped, and nobody reaches it.
    assert_eq!(moved(places[3]).len(), 4);
    assert!(guest.trapped().contains(&(Space::Memory, places[3])));
    assert_eq!(guest.read(places[3]), [0xff; 4]);
    guest.vmm().write(places[3], &[1, 2, 3, 4]);
    assert_eq!(moved(places[1]).len(), 4, "where it was before it is mapped again");
    assert!(!guest.trapped().contains(&(Space::Memory, places[3])));
    assert_eq!(&guest.read::<4>(REGISTERS), b"SLTP");
    guest.detach().assert_free();
}

#[test]
fn msix_goes_off_vector_by_vector_and_on_again() {
    let guest = Guest::started(OLD);
    for round in 0..3u32 {
        guest.config_write(MSIX_CONTROL, &ON);
        guest.arm(1, 0x41 + round, false);
        guest.arm(200, 0x99, false);
        assert_eq!(guest.raise(1), [(0xfee0_1000, 0x41 + round)]);
        assert_eq!(guest.raise(200), [(0xfee0_1000, 0x99)]);
        guest.mask(1, true);
        assert_eq!(guest.raise(1), []);
        guest.mask(1, false);
        assert_eq!(guest.delivered(), [(0xfee0_1000, 0x41 + round)]);
        guest.config_write(MSIX_CONTROL, &[0, 0]);
        assert_eq!(guest.delivered(), []);
    }
    // The vectors are masked, no more: what is signalled meanwhile comes when they are on again.
    assert_eq!((guest.raise(1), guest.raise(200)), (vec![], vec![]));
    guest.config_write(MSIX_CONTROL, &ON);
    assert_eq!(guest.delivered(), [(0xfee0_1000, 0x43), (0xfee0_1000, 0x99)]);
    guest.function.reset();
    let world = guest.detach();
    assert!(!world.take_requests().contains(&DISABLE_MSIX));
    world.assert_free();
}

#[test]
fn msi_stays_busy_once_msix_was_on() {
    let world = World::new(OLD);
    let function = world.function();
    let armed = VectorState::Armed(MsiMessage { address: 0xfee0_0000, data: 0x40 });
    let change = [VectorChange { vector: 0, state: armed }];
    for _ in 0..2 {
        assert!(function.set_vectors(MessageKind::Msi, 1, &change).is_empty());
        function.disable_vectors(MessageKind::Msi).unwrap();
    }
    assert!(function.set_vectors(MessageKind::Msix, 256, &change).is_empty());
    function.disable_vectors(MessageKind::Msix).unwrap();
    let errors = function.set_vectors(MessageKind::Msi, 1, &change);
    match errors.as_slice() {
        [HostError { source: Cause::Ppt(refusal), .. }] => assert_eq!(refusal.reason, Reason::OtherKind),
        other => panic!("{other:?}"),
    }
    assert!(function.set_vectors(MessageKind::Msix, 256, &change).is_empty());
    drop(function);
    world.assert_free();
}
