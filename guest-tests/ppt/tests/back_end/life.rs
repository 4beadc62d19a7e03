//! A function's life in a guest, from what the guest finds to what is left when it is gone.

use passthru::host::HostFunction;
use passthru::pci::Space;
use ppt_over_vfio::Options;

use crate::guest::*;
use crate::world::*;

const MAPPED: [(u64, u64); 3] = [(MEMORY, 0x10_0000), (TABLE + 0x1000, 0x7000), (TABLE + 0x9000, 0x7000)];
/// Registers that the host cannot map are the kernel's to trap; the others are the core's.
const TRAPPED: [(Space, u64); 4] =
    [(Space::Io, PORTS), (Space::Memory, REGISTERS), (Space::Memory, TABLE), (Space::Memory, TABLE + 0x8000)];

#[test]
fn the_guest_finds_the_function_as_ppt_can_carry_it_out() {
    let guest = Guest::new(Options::default());
    assert_eq!(guest.config(0x00), [0x50, 0x53, 0x01, 0x00]);
    assert_eq!(guest.config(0x3d), [0], "no pin: nobody delivers INTx");
    // 8 vectors with 64-bit addresses, which cannot be masked one by one.
    assert_eq!(guest.config(MSI_CONTROL), [0x86, 0x00]);
    assert_eq!(guest.config(MSIX_CONTROL), [0xff, 0x00], "256 vectors");
    assert_eq!(guest.config::<4>(0x84)[3] & 0x10, 0, "no FLR of the guest's own");
    assert_eq!(guest.config(0x100), [0xff; 4], "no extended configuration space");
    for (register, sized) in
        [(0x10, 0xffff_f000u32), (0x14, 0xffff_ffc1), (0x18, 0xfff0_000c), (0x20, 0xffff_0004)]
    {
        guest.config_write(register, &[0xff; 4]);
        assert_eq!(guest.config(register), sized.to_le_bytes(), "{register:#x}");
    }
    assert!(guest.vmm().is_empty(), "nothing answers yet");
}

#[test]
fn bars_come_and_go_with_decoding() {
    let guest = Guest::new(Options::default());
    assert!(guest.vmm().is_empty());
    for _ in 0..2 {
        guest.config_write(0x04, &[0x07, 0]);
        assert_eq!((guest.mapped(), guest.trapped()), (MAPPED.to_vec(), TRAPPED.to_vec()));
        assert_eq!(&guest.read::<4>(REGISTERS), b"SLTP");
        guest.config_write(0x04, &[0x01, 0]);
        assert_eq!((guest.mapped(), guest.trapped()), (vec![], vec![(Space::Io, PORTS)]));
        guest.config_write(0x04, &[0, 0]);
        assert!(guest.vmm().is_empty());
    }
    // What the guest has at an address is the function's own memory, wherever that is.
    guest.config_write(0x18, &(MEMORY as u32 + 0x40_0000).to_le_bytes());
    guest.config_write(0x04, &[0x02, 0]);
    let host = guest.vmm().book().mapped[&(MEMORY + 0x40_0000, 0x10_0000)] as *const u8;
    guest.world.hosts[0].inner.bar_write(2, 0x10, &[0x5a]).unwrap();
    // SAFETY: the function's memory, which is mapped as long as the function is there.
    assert_eq!(unsafe { host.add(0x10).read_volatile() }, 0x5a);
    guest.detach().assert_free();
}

#[test]
fn ports_are_the_functions() {
    let guest = Guest::started(Options::default());
    assert_eq!(&guest.port_read::<4>(PORTS), b"SLTP");
    assert_eq!(&guest.port_read::<1>(PORTS + 3), b"P");
    // Index and data of the registers of BAR 0.
    guest.port_write(PORTS + 8, &(SCRATCH as u32).to_le_bytes());
    guest.port_write(PORTS + 12, &[1, 2, 3, 4]);
    assert_eq!(guest.read(REGISTERS + SCRATCH), [1, 2, 3, 4]);
    // What goes on behind the last port is nobody's.
    assert_eq!(guest.port_read(PORTS + 0x3e), [0xff; 4]);
    guest.port_write(PORTS + 0x3e, &[0; 4]);
    guest.detach().assert_free();
}

#[test]
fn registers_beside_the_table_are_the_functions_and_the_table_is_not() {
    let guest = Guest::started(Options::default());
    let own = |offset| {
        let mut data = [0; 4];
        guest.world.hosts[0].inner.bar_read(4, offset, &mut data).unwrap();
        data
    };
    // Behind the pending bits of 256 vectors, in their page.
    guest.vmm().write(TABLE + 0x8100, &[1, 2, 3, 4]);
    assert_eq!((own(0x8100), guest.read(TABLE + 0x8100)), ([1, 2, 3, 4], [1, 2, 3, 4]));
    guest.vmm().write(TABLE + 0x8000, &[0xff; 4]);
    guest.arm(0, 0x40, true);
    assert_eq!((own(0x8000), own(0), own(8)), ([0; 4], [0; 4], [0; 4]));
    assert_eq!(guest.read(TABLE + 8), 0x40u32.to_le_bytes());
    guest.detach().assert_free();
}

#[test]
fn a_reset_of_the_guest_takes_everything_down_and_leaves_the_function_as_it_was() {
    let guest = Guest::started(Options::default());
    guest.config_write(MSIX_CONTROL, &ON);
    guest.arm(3, 0x43, false);
    guest.vmm().write(REGISTERS + SCRATCH, &[1, 2, 3, 4]);
    let resets = *guest.world.hosts[0].resets.lock();
    guest.world.take_requests();
    guest.function.reset();
    assert!(guest.vmm().is_empty());
    let requests = guest.world.take_requests();
    assert!(requests.contains(&DISABLE_MSIX) && requests.contains(&UNMAP), "{requests:x?}");
    assert!(!requests.contains(&UNBIND) && !requests.contains(&BIND));
    assert_eq!(*guest.world.hosts[0].resets.lock(), resets, "ppt resets at attach and detach only");
    assert_eq!((guest.config(0x04), guest.config(MSIX_CONTROL)), ([0, 0], [0xff, 0]));

    // The guest starts anew.
    guest.function.assign(0, REGISTERS);
    guest.function.assign(4, TABLE);
    guest.config_write(0x04, &[0x06, 0]);
    assert_eq!(guest.read(REGISTERS + SCRATCH), [1, 2, 3, 4]);
    assert_eq!(guest.read(TABLE + 3 * 16 + 12), [1, 0, 0, 0], "masked");
    guest.config_write(MSIX_CONTROL, &ON);
    guest.arm(1, 0x51, false);
    assert_eq!(guest.raise(1), [(0xfee0_1000, 0x51)]);

    let world = guest.detach();
    assert_eq!(*world.hosts[0].resets.lock(), resets + 1);
    world.assert_free();
    assert_eq!(*world.hosts[0].resets.lock(), resets + 3);
}

#[test]
fn what_is_on_when_it_is_detached_is_gone_and_the_next_guest_finds_nothing_of_it() {
    let guest = Guest::started(Options::default());
    guest.config_write(MSIX_CONTROL, &ON);
    (0..8).for_each(|vector| guest.arm(vector, 0x40 + vector as u32, vector % 2 == 0));
    guest.vmm().write(REGISTERS + SCRATCH, &[1, 2, 3, 4]);
    assert_eq!(guest.world.open_files(), ["/dev/vmm/a", "/dev/ppt0"]);
    let world = guest.detach();
    let requests = world.take_requests();
    assert_eq!(requests.iter().filter(|request| **request == UNBIND).count(), 1);
    assert_eq!(requests.last(), Some(&UNBIND));
    world.assert_free();
    let next = Guest::of(world);
    next.config_write(0x04, &[0x02, 0]);
    assert_eq!(next.read(REGISTERS + SCRATCH), [0; 4]);
    next.detach().assert_free();
}

#[test]
fn a_function_that_was_taken_away_meanwhile_leaves_as_well() {
    let guest = Guest::started(Options::default());
    guest.config_write(MSIX_CONTROL, &ON);
    guest.arm(0, 0x40, false);
    guest.world.unbind_behind();
    assert!(guest.mapped().is_empty());
    guest.arm(1, 0x41, false);
    guest.config_write(0x04, &[0, 0]);
    guest.config_write(0x04, &[0x07, 0]);
    assert!(guest.mapped().is_empty());
    guest.detach().assert_free();
}
