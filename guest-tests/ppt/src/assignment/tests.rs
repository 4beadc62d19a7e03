use passthru::host::ResetMethod;
use passthru::pci::capability::read_u16;
use passthru::pci::registers::COMMAND;

use crate::Options;
use crate::abi::{ppt, vm};
use crate::test_support::{OLD, Outcome, World};

const BUSY: Outcome = Err(libc::EBUSY);
const INVALID: Outcome = Err(libc::EINVAL);
const GPA: u64 = 0x10_0000;

#[test]
fn a_function_belongs_to_one_vm_and_nobody_else_sets_it_up() {
    let world = World::new(Options::default());
    let busy = |vm: i32| {
        assert_eq!(world.owner(vm, vm::UNBIND_PPTDEV, 0), BUSY);
        assert_eq!(world.owner(vm, vm::PPTDEV_DISABLE_MSIX, 0), BUSY);
        assert_eq!(world.limits(vm, 0), Err(libc::EBUSY));
        assert_eq!(world.map(vm, 0, GPA, 2, 0, 0x1000), BUSY);
        assert_eq!(world.unmap(vm, 0, GPA, 0x1000), BUSY);
        assert_eq!(world.msi(vm, 0, 0, 1, 0x40, 0xfee0_0000), BUSY);
        assert_eq!(world.msix(vm, 0, 0, 0, 0x40, 0), BUSY);
    };
    busy(world.a);
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    assert_eq!([world.a, world.b].map(|vm| world.owner(vm, vm::BIND_PPTDEV, 0)), [BUSY; 2]);
    busy(world.b);
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 1), Ok(0), "the other function is free");
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Ok(0));
    busy(world.a);
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), Ok(0), "two of one VM");
}

#[test]
fn binding_and_unbinding_reset_the_function_while_nothing_of_it_is_on() {
    let world = World::new(Options::default());
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    let calls = world.take_calls();
    assert_eq!(calls, ["reset", "config 0x4 = [0, 0]", "config 0x4 = [7, 0]"]);
    assert_eq!(world.map(world.a, 0, GPA, 2, 0, 0x1000), Ok(0));
    assert_eq!(world.msix(world.a, 0, 0, 0, 0x40, 0), Ok(0));
    // What a guest leaves behind: D3hot, a cache line size, device control of the PCI Express capability, a BAR.
    for (offset, width, data) in
        [(0x44, 2, 0x800b), (0x0c, 1, 0x10), (0x88, 2, 0x2810), (0x10, 4, 0xfe00_0000)]
    {
        world.config(0, ppt::CFG_WRITE, offset, width, data).unwrap();
    }
    world.take_calls();
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Ok(0));
    assert_eq!(
        world.take_calls(),
        [
            "MSI-X off",
            "unmap BAR 2 0x0..0x1000 at 0x100000",
            "reset",
            "config 0x44 = [8, 0]",
            "config 0xc = [0]",
            "config 0x10 = [0, 0, 0, 0]",
            "config 0x88 = [0, 0]",
            "config 0x4 = [0, 0]",
        ]
    );
}

#[test]
fn a_function_without_a_reset_of_its_own_is_silently_not_reset() {
    for reset in
        [None, Some(ResetMethod::AtAttach), Some(ResetMethod::BusWith(["0000:01:00.1".into()].into()))]
    {
        let world = World::with(Options::default(), |_, report| report.reset = reset.clone());
        for request in [vm::BIND_PPTDEV, vm::UNBIND_PPTDEV] {
            assert_eq!(world.owner(world.a, request, 0), Ok(0), "{reset:?}");
        }
        assert!(!world.take_calls().contains(&"reset".to_owned()), "{reset:?}");
    }
}

#[test]
fn a_bind_that_fails_leaves_the_function_free() {
    let world = World::new(Options::default());
    for call in ["config read", "config"] {
        world.fail(Some(call));
        assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Err(libc::EIO), "{call}");
        assert_eq!(world.limits(world.a, 0), Err(libc::EBUSY), "{call}");
    }
    world.fail(None);
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), Ok(0));
    let without = World::new(Options { iommu: false, ..Options::default() });
    assert_eq!(without.owner(without.a, vm::BIND_PPTDEV, 0), Err(libc::ENXIO));
    assert_eq!(without.take_calls(), [""; 0]);
}

#[test]
fn in_2018_a_vm_may_bind_again_and_decoding_is_its_own_to_turn_on() {
    let world = World::bound(OLD);
    assert_eq!(read_u16(&world.functions[0].config.lock(), COMMAND), 0);
    assert_eq!(world.map(world.a, 0, GPA, 2, 0x1000, 0x1000), Ok(0));
    assert_eq!(world.msi(world.a, 0, 0, 1, 0x40, 0xfee0_0000), Ok(0));
    world.take_calls();
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    let calls = world.take_calls();
    let expected = ["MSI off", "unmap BAR 2 0x1000..0x2000 at 0x100000", "reset"];
    assert_eq!(calls[..3], expected);
    assert_eq!(calls.last().unwrap(), "map BAR 2 0x1000..0x2000 at 0x100000", "it is where it was");
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), BUSY);
}

#[test]
fn parts_of_memory_bars_are_mapped_as_the_checks_allow_in_their_order() {
    let world = World::bound(Options::default());
    let hpa = world.base(0, 2);
    let map = |gpa, hpa, len| world.mmio(world.a, vm::MAP_PPTDEV_MMIO, 0, [gpa, hpa, len]);
    for (gpa, hpa, len, expected) in [
        (GPA, hpa, 0, INVALID),
        (GPA + 1, hpa, 0x1000, INVALID),
        (GPA, hpa + 0x800, 0x1000, INVALID),
        (GPA, hpa, 0x1001, INVALID),
        (u64::MAX - 0xfff, hpa, 0x1000, INVALID),
        (GPA, u64::MAX - 0xfff, 0x1000, INVALID),
        (GPA, hpa - 0x1000, 0x2000, INVALID),
        (GPA, hpa + (1 << 20), 0x1000, INVALID),
        (GPA, hpa, (1 << 20) + 0x1000, INVALID),
        (GPA, 0, 0x1000, INVALID),
        (GPA, world.base(1, 2), 0x1000, INVALID),
        (GPA, world.base(0, 1) & !0xfff, 0x1000, INVALID),
        (1 << 52, hpa, 0x1000, Err(libc::ENOMEM)),
        ((1 << 52) - 0x1000, hpa, 0x2000, Err(libc::ENOMEM)),
        (1 << 62, hpa, 0x1000, Err(libc::ENOMEM)),
        (GPA, hpa, 1 << 20, Ok(0)),
        (GPA, hpa, 1 << 20, Err(libc::ENOMEM)),
        (GPA + 0xf_f000, hpa, 0x2000, Err(libc::ENOMEM)),
        (GPA + (1 << 20), hpa + 0xf_f000, 0x1000, Ok(0)),
    ] {
        assert_eq!(map(gpa, hpa, len), expected, "{gpa:#x} {hpa:#x} {len:#x}");
    }
    // Of the argument before the number, of the number before its owner, of the owner before the BAR.
    let unowned = |ppt: i32, values| {
        let mut world = World::new(Options::default());
        world.ppt[0] = ppt;
        world.mmio(world.a, vm::MAP_PPTDEV_MMIO, 0, values)
    };
    assert_eq!(unowned(-1, [1, 0, 0]), INVALID);
    assert_eq!(unowned(-1, [0, 0, 0x1000]), Err(libc::EBADF));
    assert_eq!(unowned(world.ppt[0], [0, 0, 0x1000]), BUSY);
}

#[test]
fn seven_parts_are_mapped_at_once_and_only_whole_ones_are_taken_away() {
    let world = World::bound(Options::default());
    let place = |n: u64| GPA + n * 0x2000;
    for n in 0..7 {
        assert_eq!(world.map(world.a, 0, place(n), 2, n * 0x1000, 0x2000 - 0x1000 * (n & 1)), Ok(0));
    }
    assert_eq!(world.map(world.a, 0, place(9), 2, 0, 0x1000), Err(libc::ENOSPC));
    assert_eq!(world.map(world.a, 0, place(9), 2, 1 << 20, 0x1000), INVALID, "the BAR is looked at first");
    for (gpa, len, expected) in [
        (place(0), 0x1000, Err(libc::ENOENT)),
        (place(0) + 0x1000, 0x1000, Err(libc::ENOENT)),
        (place(0), 0x4000, Err(libc::ENOENT)),
        (place(0), 0, Err(libc::ENOENT)),
        (1, 2, Err(libc::ENOENT)),
        (place(0), 0x2000, Ok(0)),
        (place(0), 0x2000, Err(libc::ENOENT)),
    ] {
        assert_eq!(world.unmap(world.a, 0, gpa, len), expected, "{gpa:#x} {len:#x}");
    }
    assert_eq!(world.vmm.book().mapped.len(), 6);
    assert_eq!(world.map(world.a, 0, place(0), 2, 0, 0x1000), Ok(0));
}

#[test]
fn what_the_host_cannot_map_is_trapped_and_reaches_the_function() {
    let world = World::with(Options::default(), |description, _| {
        description.bars[4].mappable = vec![0x2000..0x8000, 0x9000..0x1_0000];
    });
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    // The registers of BAR 0 cannot be mapped at all.
    assert_eq!(world.map(world.a, 0, GPA, 0, 0, 0x1000), Ok(0));
    let mut id = [0; 4];
    world.vmm.read(GPA, &mut id);
    assert_eq!(&id, b"SLTP");
    world.vmm.write(GPA + 8, &[1, 2, 3, 4]);
    world.vmm.read(GPA + 8, &mut id);
    assert_eq!(id, [1, 2, 3, 4]);
    assert_eq!(world.map(world.a, 0, 2 * GPA, 4, 0x1000, 0xf000), Ok(0));
    let book = |world: &World| {
        let book = world.vmm.book();
        let mapped: Vec<u64> = book.mapped.keys().map(|(gpa, _)| *gpa).collect();
        let trapped: Vec<(u64, u8, u64)> =
            book.trapped.iter().map(|t| (t.range.start, t.bar, t.offset)).collect();
        (mapped, trapped)
    };
    let expected = (
        vec![2 * GPA + 0x1000, 2 * GPA + 0x8000],
        vec![(GPA, 0, 0), (2 * GPA, 4, 0x1000), (2 * GPA + 0x7000, 4, 0x8000)],
    );
    assert_eq!(book(&world), expected);
    world.fail(Some("read of"));
    world.vmm.read(GPA, &mut id);
    assert_eq!(id, [0xff; 4], "as on the bus");
    assert_eq!(world.unmap(world.a, 0, 2 * GPA, 0xf000), Ok(0));
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Ok(0));
    assert_eq!(book(&world), (vec![], vec![]));
}

#[test]
fn a_map_that_fails_half_way_leaves_nothing_and_an_unmap_can_be_tried_again() {
    let world = World::with(Options::default(), |d, _| d.bars[4].mappable = vec![0..0x1000, 0x2000..0x3000]);
    assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
    world.fail(Some("map BAR 4 0x2000"));
    assert_eq!(world.map(world.a, 0, GPA, 4, 0, 0x3000), Err(libc::ENOMEM));
    assert!(world.vmm.is_empty());
    world.fail(None);
    world.vmm.book().refuse_maps = 1;
    assert_eq!(world.map(world.a, 0, GPA, 4, 0, 0x3000), Err(libc::ENOMEM));
    assert_eq!(world.map(world.a, 0, GPA, 4, 0, 0x3000), Ok(0));
    world.fail(Some("unmap BAR 4 0x0"));
    assert_eq!(world.unmap(world.a, 0, GPA, 0x3000), Err(libc::EIO));
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Err(libc::EIO), "still the VM's");
    world.fail(None);
    assert_eq!(world.unmap(world.a, 0, GPA, 0x3000), Ok(0));
    assert!(world.vmm.is_empty());
}
