use crate::Options;
use crate::abi::vm;
use crate::test_support::{Bytes, Edge, OLD, Outcome, World};

const BUSY: Outcome = Err(libc::EBUSY);
const INVALID: Outcome = Err(libc::EINVAL);
const NONE: Outcome = Err(libc::ENXIO);
const ADDRESS: u64 = 0xfee0_0000;
const SILENCE: [u32; 0] = [];

fn msi(world: &World, vectors: i32, msg: u64) -> Outcome {
    world.msi(world.a, 0, 0, vectors, msg, ADDRESS)
}

fn msix(world: &World, index: i32, msg: u64, control: u32) -> Outcome {
    world.msix(world.a, 0, 0, index, msg, control)
}

/// What comes of the function signalling these vectors.
fn raised(world: &World, vectors: &[u32]) -> Vec<u32> {
    for vector in vectors {
        world.raise(0, *vector);
    }
    let mut data: Vec<u32> = world.delivered().into_iter().map(|(_, data)| data).collect();
    data.sort_unstable();
    data
}

#[test]
fn limits_are_what_the_host_has() {
    for (has, expected) in [
        ((8, 256), [8, 256]),
        ((0, 0), [-1, -1]),
        ((1, 0), [1, -1]),
        ((0, 2048), [-1, 2048]),
        ((64, 1), [32, 1]),
    ] {
        let world = World::with(Options::default(), |_, report| (report.msi, report.msix) = has);
        assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
        assert_eq!(world.limits(world.a, 0), Ok(expected), "{has:?}");
    }
}

#[test]
fn the_first_field_is_a_vcpu_and_is_looked_at_first() {
    let mut world = World::bound(Options::default());
    for (vcpu, expected) in
        [(0, Ok(0)), (31, Ok(0)), (32, Ok(0)), (33, INVALID), (-1, INVALID), (i32::MAX, INVALID)]
    {
        assert_eq!(world.msi(world.a, vcpu, 0, 0, 0, 0), expected, "{vcpu}");
        assert_eq!(world.msix(world.a, vcpu, 0, 0, 0, 1), expected, "{vcpu}");
    }
    world.ppt[0] = -1;
    assert_eq!([world.msi(world.a, -1, 0, 1, 0, 0), world.msix(world.a, -1, 0, 0, 0, 0)], [INVALID; 2]);
    assert_eq!(
        [world.msi(world.a, 0, 0, 1, 0, 0), world.msix(world.a, 0, 0, 0, 0, 0)],
        [Err(libc::EBADF); 2]
    );
}

#[test]
fn the_first_field_of_an_argument_that_ends_too_soon_counts() {
    let world = World::bound(Options::default());
    let edge = Edge::new(libc::PROT_READ | libc::PROT_WRITE);
    for (vcpu, expected) in [(-1i32, libc::EINVAL), (0, libc::EFAULT)] {
        for request in [vm::PPTDEV_MSI, vm::PPTDEV_MSIX] {
            // SAFETY: the last four bytes of the page.
            unsafe { edge.at(4092).cast::<i32>().write(vcpu) };
            assert_eq!(world.call_at(world.a, request, edge.at(4092)), Err(expected), "{vcpu}");
        }
    }
}

#[test]
fn msi_is_set_up_anew_each_time() {
    let world = World::bound(Options::default());
    assert_eq!(msi(&world, 4, 0x60), Ok(0));
    assert_eq!(raised(&world, &[0, 1, 2, 3, 4]), [0x60, 0x61, 0x62, 0x63]);
    world.take_calls();
    assert_eq!(msi(&world, 2, 0x80), Ok(0));
    assert_eq!(world.take_calls(), ["MSI off", "MSI of 2: [0, 1]"]);
    assert_eq!(raised(&world, &[0, 1, 2, 3]), [0x80, 0x81]);
    // A count that is no power of two, and messages whose low bits are not the vector's number.
    assert_eq!(msi(&world, 3, 0xffff_ffff_0000_0043), Ok(0));
    assert_eq!(raised(&world, &[0, 1, 2]), [0x43, 0x44, 0x45]);
    assert_eq!(msi(&world, 0, 0), Ok(0));
    assert_eq!(raised(&world, &[0, 1]), SILENCE);
    assert_eq!(msi(&world, 0, 0), Ok(0), "nothing to turn off");
}

#[test]
fn msi_that_cannot_be_is_told_and_that_of_before_is_gone() {
    let world = World::bound(Options::default());
    for (vectors, expected, left) in [
        (-1, INVALID, true),
        (33, INVALID, true),
        (i32::MIN, INVALID, true),
        (9, INVALID, false),
        (32, INVALID, false),
    ] {
        assert_eq!(msi(&world, 1, 0x60), Ok(0));
        assert_eq!(msi(&world, vectors, 0x70), expected, "{vectors}");
        assert_eq!(!raised(&world, &[0]).is_empty(), left, "{vectors}");
    }
    world.fail(Some("MSI of 1"));
    assert_eq!(msi(&world, 1, 0x60), NONE);
    world.fail(None);
    assert_eq!(msix(&world, 0, 0x40, 0), Ok(0), "nothing of it is left");
    let without = World::with(Options::default(), |_, report| report.msi = 0);
    assert_eq!(without.owner(without.a, vm::BIND_PPTDEV, 0), Ok(0));
    assert_eq!([msi(&without, 1, 0x60), msi(&without, 2, 0x60), msi(&without, 0, 0)], [NONE, NONE, Ok(0)]);
}

#[test]
fn one_kind_is_on_at_a_time() {
    let world = World::bound(Options::default());
    assert_eq!(msi(&world, 1, 0x60), Ok(0));
    assert_eq!([msix(&world, 0, 0x40, 0), msix(&world, 0, 0x40, 1), msix(&world, 999, 0x40, 0)], [BUSY; 3]);
    assert_eq!(world.owner(world.a, vm::PPTDEV_DISABLE_MSIX, 0), Ok(0), "it is off");
    assert_eq!(raised(&world, &[0]), [0x60]);
    assert_eq!(msi(&world, 0, 0), Ok(0));
    assert_eq!(msix(&world, 0, 0x40, 1), Ok(0), "turns it on, with nothing installed");
    assert_eq!([msi(&world, 1, 0x60), msi(&world, 9, 0x60)], [BUSY; 2]);
    assert_eq!(msi(&world, 0, 0x60), Ok(0), "off is off");
    assert_eq!(world.owner(world.a, vm::PPTDEV_DISABLE_MSIX, 0), Ok(0));
    assert_eq!(msi(&world, 1, 0x60), Ok(0));
    let old = World::bound(OLD);
    assert_eq!(msix(&old, 0, 0x40, 0), Ok(0));
    let mut disable = Bytes::new(4).int(0, old.ppt[0]);
    assert_eq!(old.call(old.a, vm::PPTDEV_DISABLE_MSIX, &mut disable), Err(libc::ENOTTY));
    assert_eq!(msi(&old, 1, 0x60), BUSY, "until it is bound again");
    assert_eq!(old.owner(old.a, vm::BIND_PPTDEV, 0), Ok(0));
    assert_eq!(msi(&old, 1, 0x60), Ok(0));
}

#[test]
fn the_first_vector_of_msix_allocates_all() {
    let world = World::bound(Options::default());
    assert_eq!(msix(&world, -1, 0x40, 0), INVALID);
    assert_eq!(msix(&world, i32::MIN, 0x40, 1), INVALID);
    assert_eq!(world.take_calls(), [""; 0], "a negative one does nothing");
    assert_eq!(msix(&world, 256, 0x40, 0), INVALID);
    assert_eq!(world.take_calls(), ["MSI-X of 256: []"]);
    assert_eq!(msix(&world, 255, 0x4f, 0), Ok(0));
    assert_eq!(msix(&world, 7, 0x47, 1), Ok(0));
    assert_eq!(world.take_calls(), ["MSI-X of 256: [255]"], "what is not installed is not torn down");
    assert_eq!(raised(&world, &[7, 255]), [0x4f]);
    let without = World::with(Options::default(), |_, report| report.msix = 0);
    assert_eq!(without.owner(without.a, vm::BIND_PPTDEV, 0), Ok(0));
    assert_eq!([msix(&without, 0, 0x40, 0), msix(&without, 0, 0x40, 1)], [INVALID; 2]);
    let world = World::bound(Options::default());
    world.fail(Some("MSI-X of"));
    assert_eq!(msix(&world, 0, 0x40, 0), INVALID, "the allocation fell short");
    assert_eq!(msi(&world, 1, 0x60), Ok(0), "and nothing is on");
}

#[test]
fn a_vector_of_msix_is_torn_down_and_installed_again() {
    let world = World::bound(Options::default());
    for (index, msg) in [(0, 0x40), (1, 0x41)] {
        assert_eq!(msix(&world, index, msg, 0), Ok(0));
    }
    assert_eq!(raised(&world, &[0, 1]), [0x40, 0x41]);
    assert_eq!(msix(&world, 0, 0x50, 0), Ok(0), "again, as another message");
    assert_eq!(raised(&world, &[0, 1]), [0x41, 0x50]);
    assert_eq!(msix(&world, 0, 0x50, 0xffff_ffff), Ok(0));
    assert_eq!(raised(&world, &[0, 0, 1]), [0x41]);
    assert_eq!(msix(&world, 0, 0x60, 0xffff_fffe), Ok(0), "only bit 0 counts");
    assert_eq!(raised(&world, &[]), [0x60], "what the function had pending, once");
    assert_eq!(raised(&world, &[0]), [0x60]);
}

#[test]
fn nothing_is_kept_while_msix_is_off() {
    let world = World::bound(Options::default());
    assert_eq!([msix(&world, 0, 0x40, 0), msix(&world, 0, 0x40, 1)], [Ok(0); 2]);
    world.raise(0, 0);
    assert_eq!(world.owner(world.a, vm::PPTDEV_DISABLE_MSIX, 0), Ok(0));
    world.raise(0, 0);
    assert_eq!(msix(&world, 0, 0x40, 0), Ok(0));
    assert_eq!(raised(&world, &[]), SILENCE);
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Ok(0));
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    assert_eq!(raised(&world, &[0]), SILENCE, "nor from one VM to the next");
}

#[test]
fn a_vector_that_the_host_refuses_is_enxio_and_takes_no_other_with_it() {
    let world = World::bound(Options::default());
    assert_eq!([msix(&world, 0, 0x40, 0), msix(&world, 1, 0x41, 0)], [Ok(0); 2]);
    world.fail(Some("MSI-X of 256: [1]"));
    assert_eq!(msix(&world, 1, 0x51, 0), NONE);
    world.fail(None);
    assert_eq!(msix(&world, 1, 0x51, 1), Ok(0), "it is down");
    assert_eq!(raised(&world, &[0]), [0x40]);
    world.vmm.book().gsis = 2;
    assert_eq!(msix(&world, 2, 0x42, 0), NONE, "no GSI is left");
}

#[test]
fn a_message_that_is_no_interrupt_is_taken_and_raises_nothing() {
    let world = World::bound(Options::default());
    assert_eq!(world.msi(world.a, 0, 0, 1, 0x40, 0), Ok(0));
    assert_eq!(raised(&world, &[0]), SILENCE);
    assert_eq!(msi(&world, 1, 0x40), Ok(0));
    assert_eq!(raised(&world, &[0]), [0x40]);
}
