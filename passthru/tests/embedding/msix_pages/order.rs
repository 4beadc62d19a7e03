//! When a mask shows: once no interrupt comes any more. It is gone before one comes again.

use super::*;

const CONTROL: u64 = 3 * 16 + 12;
const UNMASKED: [u8; 4] = [0; 4];
/// An eventfd is attached to the hypervisor, or detached.
const ATTACHED: bool = true;
const DETACHED: bool = false;

fn control(guest: &Guest) -> [u8; 4] {
    let mut control = [0xff; 4];
    guest.vmm.read(BAR4 + CONTROL, &mut control);
    control
}

#[test]
fn a_mask_shows_after_the_interrupt_is_off_and_is_gone_before_it_is_on() {
    let guest = Guest::new();
    guest.write(3 * 16, &0xfee0_0000u64.to_le_bytes());
    guest.write(3 * 16 + 8, &[0x43, 0, 0, 0]);
    guest.vmm.book().look_at = Some(BAR4 + CONTROL);
    for (masked, seen) in [(false, ATTACHED), (true, DETACHED), (false, ATTACHED)] {
        guest.mask(3, masked);
        let looked = std::mem::take(&mut guest.vmm.book().looked);
        assert_eq!(looked, [(seen, UNMASKED)], "masked: {masked}");
        assert_eq!(control(&guest), [u8::from(masked), 0, 0, 0]);
    }
    // The data and the mask with one write, as Linux does not.
    for (masked, seen) in [(1u64, DETACHED), (0, ATTACHED)] {
        guest.write(3 * 16 + 8, &(0x44 | masked << 32).to_le_bytes());
        let looked = std::mem::take(&mut guest.vmm.book().looked);
        assert_eq!(looked, [(seen, UNMASKED)], "masked: {masked}");
        assert_eq!(guest.entry(BAR4, 3) >> 64, u128::from(0x44 | masked << 32));
    }
}

/// A pending bit is clear before what pended is delivered, which a handler may see.
#[test]
fn a_pending_bit_is_gone_before_its_interrupt_comes() {
    let guest = Guest::new();
    guest.arm(3);
    guest.mask(3, true);
    guest.trigger(3);
    assert_eq!(guest.pending(), [3]);
    guest.vmm.book().look_at = Some(BAR4 + PENDING);
    guest.mask(3, false);
    assert_eq!(guest.vmm.book().looked, [(ATTACHED, [0; 4])]);
    assert_eq!(guest.vmm.delivered().len(), 1);
}
