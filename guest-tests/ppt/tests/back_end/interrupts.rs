//! Vectors, from the guest's registers to the message that the kernel delivers.

use ppt_over_vfio::Options;

use crate::guest::*;
use crate::world::*;

const NONE: [(u64, u32); 0] = [];

fn message(data: u32) -> Vec<(u64, u32)> {
    vec![(0xfee0_1000, data)]
}

/// Eight vectors of MSI.
fn msi_on(guest: &Guest) {
    guest.config_write(0x54, &0xfee0_1000u32.to_le_bytes());
    guest.config_write(0x5c, &[0x60, 0]);
    guest.config_write(MSI_CONTROL, &[0x31, 0]);
}

#[test]
fn a_vector_of_msix_is_armed_through_the_table_masked_and_made_up_for() {
    let guest = Guest::started(Options::default());
    guest.config_write(MSIX_CONTROL, &ON);
    guest.arm(2, 0x42, false);
    guest.arm(255, 0x99, false);
    assert_eq!((guest.raise(2), guest.raise(255), guest.raise(3)), (message(0x42), message(0x99), vec![]));

    guest.mask(2, true);
    assert_eq!((guest.raise(2), guest.raise(2)), (vec![], vec![]));
    guest.mask(2, false);
    assert_eq!(guest.delivered(), message(0x42), "once");
    assert_eq!(guest.delivered(), NONE);

    guest.vmm().write(TABLE + 2 * 16 + 8, &0x52u32.to_le_bytes());
    assert_eq!(guest.raise(2), message(0x52), "another message");
    guest.config_write(MSIX_CONTROL, &[0, 0xc0]);
    assert_eq!((guest.raise(2), guest.raise(255)), (vec![], vec![]), "the function masked");
    guest.config_write(MSIX_CONTROL, &ON);
    assert_eq!(guest.delivered().len(), 2);

    guest.config_write(MSIX_CONTROL, &[0, 0]);
    assert_eq!(guest.raise(2), NONE);
    assert!(guest.vmm().book().attached.is_empty() && guest.vmm().book().routes.is_empty());
    guest.config_write(MSIX_CONTROL, &ON);
    assert_eq!(guest.raise(2), message(0x52), "the table kept it");
    guest.detach().assert_free();
}

#[test]
fn one_kind_follows_the_other() {
    let guest = Guest::started(Options::default());
    for _ in 0..2 {
        guest.config_write(MSIX_CONTROL, &ON);
        guest.arm(1, 0x41, false);
        assert_eq!(guest.raise(1), message(0x41));
        // With both on MSI-X counts.
        msi_on(&guest);
        assert_eq!(guest.raise(1), message(0x41));
        guest.config_write(MSIX_CONTROL, &[0, 0]);
        assert_eq!((guest.raise(1), guest.raise(7)), (message(0x61), message(0x67)));
        guest.config_write(MSI_CONTROL, &[0, 0]);
        assert_eq!(guest.raise(1), NONE);
    }
    // Fewer vectors, and other messages.
    guest.config_write(MSI_CONTROL, &[0x11, 0]);
    assert_eq!((guest.raise(1), guest.raise(2)), (message(0x61), vec![]));
    guest.config_write(0x5c, &[0x70, 0]);
    assert_eq!(guest.raise(1), message(0x71));
    guest.detach().assert_free();
}

#[test]
fn what_the_host_refuses_is_silent_until_it_is_told_again() {
    let guest = Guest::started(Options::default());
    guest.config_write(MSIX_CONTROL, &ON);
    guest.arm(0, 0x40, false);
    guest.world.fail(Fails::SetVectors);
    guest.arm(1, 0x41, false);
    assert_eq!((guest.raise(0), guest.raise(1)), (message(0x40), vec![]));
    guest.world.works();
    guest.mask(1, false);
    assert_eq!(guest.raise(1), message(0x41));
    guest.detach().assert_free();
}
