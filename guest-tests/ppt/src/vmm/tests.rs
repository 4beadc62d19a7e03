use passthru::host::ppt::sys::Sys;

use crate::Options;
use crate::abi::{vm, vmmctl};
use crate::test_support::{Bytes, OLD, World};

#[test]
fn vms_are_made_found_and_destroyed() {
    let world = World::new(Options::default());
    assert_eq!(world.named(vmmctl::CREATE_VM, "a"), Err(libc::EEXIST));
    assert_eq!(world.named(vmmctl::CREATE_VM, ""), Err(libc::EINVAL));
    assert_eq!(world.named(vmmctl::CREATE_VM, "x/y"), Err(libc::EINVAL));
    assert_eq!(world.named(vmmctl::CREATE_VM, &"x".repeat(128)), Err(libc::EINVAL), "no zero at its end");
    let flags = &mut Bytes::new(136).put(0, b"c").u64(128, 1 << 40);
    assert_eq!(world.call(world.control, vmmctl::CREATE_VM, flags), Err(libc::EINVAL));
    assert_eq!(world.named(vmmctl::DESTROY_VM, "c"), Err(libc::ENOENT));
    assert_eq!(world.named(vmmctl::DESTROY_VM, "b"), Ok(0));
    assert_eq!(world.open("/dev/vmm/b"), Err(libc::ENOENT));
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), Err(libc::ENXIO), "its file is of nothing");
    assert_eq!(world.named(vmmctl::CREATE_VM, "b"), Ok(0));
    assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), Err(libc::ENXIO), "the new one is another");
    let made = (0..).take_while(|n| world.named(vmmctl::CREATE_VM, &format!("vm{n}")) == Ok(0)).count();
    assert_eq!(made, 62);
    assert_eq!(world.named(vmmctl::CREATE_VM, "more"), Err(libc::ENXIO));
}

#[test]
fn the_control_device_tells_what_the_kernel_is() {
    let without = Options { iommu: false, ..Options::default() };
    for (options, version, iommu) in [
        (Options::default(), Ok(18), Ok(0)),
        (OLD, Err(libc::ENOTTY), Ok(0)),
        (without, Ok(18), Err(libc::ENXIO)),
    ] {
        let world = World::new(options);
        for fd in [world.control, world.a] {
            assert_eq!(world.call_nowhere(fd, vmmctl::INTERFACE_VERSION), version);
        }
        assert_eq!(world.call_nowhere(world.control, vmmctl::CHECK_IOMMU), iommu);
        assert_eq!(world.call_nowhere(world.control, vmmctl::VM_SUPPORTED), Ok(0));
        assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), iommu.map(|_| 0));
    }
}

#[test]
fn every_request_checks_number_request_and_address_in_this_order() {
    let world = World::new(Options::default());
    for request in [
        vm::REINIT,
        vm::BIND_PPTDEV,
        vm::UNBIND_PPTDEV,
        vm::MAP_PPTDEV_MMIO,
        vm::ALLOC_MEMSEG,
        vm::MMAP_MEMSEG,
        vm::MUNMAP_MEMSEG,
        vm::UNMAP_PPTDEV_MMIO,
        vm::PPTDEV_MSI,
        vm::PPTDEV_MSIX,
        vm::GET_PPTDEV_LIMITS,
        vm::PPTDEV_DISABLE_MSIX,
    ] {
        assert_eq!(world.call_nowhere(world.a, request), Err(libc::EFAULT), "{request:#x}");
        assert_eq!(world.call_nowhere(-1, request), Err(libc::EBADF), "{request:#x}");
        assert_eq!(world.call_nowhere(world.control, request), Err(libc::ENOTTY), "{request:#x}");
    }
    for request in [vmmctl::CREATE_VM, vmmctl::DESTROY_VM] {
        assert_eq!(world.call_nowhere(world.control, request), Err(libc::EFAULT), "{request:#x}");
        assert_eq!(world.call_nowhere(world.a, request), Err(libc::ENOTTY), "{request:#x}");
    }
    for request in [0, -1, 0x76_6c7f, 0x76_6d06, 0x76_6dff, 0x50_5401] {
        assert_eq!(world.call_nowhere(world.a, request), Err(libc::ENOTTY), "{request:#x}");
    }
}

#[test]
fn what_2018_did_not_have_is_not_there() {
    let world = World::bound(OLD);
    for request in [vm::UNMAP_PPTDEV_MMIO, vm::MUNMAP_MEMSEG, vm::PPTDEV_DISABLE_MSIX] {
        assert_eq!(world.call_nowhere(world.a, request), Err(libc::ENOTTY), "{request:#x}");
    }
    assert_eq!(world.limits(world.a, 0), Ok([8, 256]), "the rest is");
    assert_eq!(world.map(world.a, 0, 0x10_0000, 2, 0, 0x1000), Ok(0));
    assert_eq!(world.msix(world.a, 0, 0, 0, 0x40, 0), Ok(0));
    assert_eq!(world.owner(world.a, vm::UNBIND_PPTDEV, 0), Ok(0));
}

#[test]
fn the_end_of_a_vm_takes_its_functions_back_and_no_others() {
    type End = fn(&World);
    let ends: [(&str, End); 2] = [
        ("destroy", |world| assert_eq!(world.named(vmmctl::DESTROY_VM, "a"), Ok(0))),
        ("reinit", |world| assert_eq!(world.call(world.a, vm::REINIT, &mut Bytes::new(8)), Ok(0))),
    ];
    for (name, end) in ends {
        let world = World::bound(Options::default());
        assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 1), Ok(0));
        for (vm, n, gpa) in [(world.a, 0, 0x10_0000), (world.b, 1, 0x80_0000)] {
            assert_eq!(world.map(vm, n, gpa, 2, 0, 0x1000), Ok(0));
            assert_eq!(world.msix(vm, 0, n, 1, 0x41, 0), Ok(0));
        }
        end(&world);
        assert_eq!(world.limits(world.b, 0), Err(libc::EBUSY), "{name}: nobody's");
        let left: Vec<u64> = world.vmm.book().mapped.keys().map(|(gpa, _)| *gpa).collect();
        assert_eq!(left, [0x80_0000], "{name}");
        for n in [0, 1] {
            world.raise(n, 1);
        }
        assert_eq!(world.delivered(), [(0xfee0_0000, 0x41)], "{name}: of the other only");
        assert_eq!(world.owner(world.b, vm::BIND_PPTDEV, 0), Ok(0), "{name}");
    }
}

#[test]
fn a_vm_stays_whose_function_cannot_be_taken_back() {
    let world = World::bound(Options::default());
    assert_eq!(world.map(world.a, 0, 0x10_0000, 2, 0, 0x1000), Ok(0));
    world.fail(Some("unmap"));
    assert_eq!(world.named(vmmctl::DESTROY_VM, "a"), Err(libc::EIO));
    assert_eq!(world.limits(world.a, 0), Ok([8, 256]));
    world.fail(None);
    assert_eq!(world.named(vmmctl::DESTROY_VM, "a"), Ok(0));
}

#[test]
fn the_end_of_the_kernel_leaves_nothing_behind() {
    let world = World::bound(Options::default());
    assert_eq!(world.map(world.a, 0, 0x10_0000, 2, 0, 0x1000), Ok(0));
    assert_eq!(world.msix(world.a, 0, 0, 1, 0x41, 0), Ok(0));
    world.mmap(world.ppt[0], 0x1000, 0).unwrap();
    let World { kernel, vmm, functions, .. } = world;
    drop(kernel);
    assert!(vmm.is_empty());
    assert_eq!(functions[0].calls.lock().iter().filter(|call| call.starts_with("unmap")).count(), 2);
}

#[test]
fn memory_is_a_book_of_segments() {
    let world = World::new(Options::default());
    let segment = |id, len| Bytes::new(144).int(0, id).u64(8, len);
    for (id, len, expected) in [
        (0, 0x10_0000, Ok(0)),
        (0, 0x10_0000, Err(libc::EEXIST)),
        (1, 0, Err(libc::EINVAL)),
        (1, 0x800, Err(libc::EINVAL)),
        (-1, 0x1000, Err(libc::EINVAL)),
        (16, 0x1000, Err(libc::EINVAL)),
    ] {
        assert_eq!(world.call(world.a, vm::ALLOC_MEMSEG, &mut segment(id, len)), expected, "{id} {len:#x}");
    }
    let map = |gpa, id, offset, len, protection, flags| {
        Bytes::new(40).u64(0, gpa).int(8, id).u64(16, offset).u64(24, len).int(32, protection).int(36, flags)
    };
    for (mut bytes, expected) in [
        (map(0, 0, 0, 0x8_0000, 7, 1), Ok(0)),
        (map(0x1000, 0, 0, 0x1000, 7, 1), Err(libc::EINVAL)),
        (map(0x10_0000, 0, 0x8_0000, 0x8_0000, 7, 0), Ok(0)),
        (map(0x20_0000, 0, 0x8_0000, 0x8_1000, 7, 0), Err(libc::EINVAL)),
        (map(0x20_0000, 1, 0, 0x1000, 7, 0), Err(libc::EINVAL)),
        (map(0x20_0000, 0, 0, 0x1000, 0, 0), Err(libc::EINVAL)),
        (map(0x20_0000, 0, 0, 0x1000, 7, 4), Err(libc::EINVAL)),
        (map(0x20_0010, 0, 0, 0x1000, 7, 0), Err(libc::EINVAL)),
        (map(u64::MAX - 0xfff, 0, 0, 0x1000, 7, 0), Err(libc::EINVAL)),
    ] {
        assert_eq!(world.call(world.a, vm::MMAP_MEMSEG, &mut bytes), expected);
    }
    assert_eq!(world.kernel.wired("a"), [(0, 0x8_0000)]);
    assert_eq!([world.kernel.wired("b"), world.kernel.wired("c")], [[]; 2]);
    let unmap =
        |gpa, len| world.call(world.a, vm::MUNMAP_MEMSEG, &mut Bytes::new(16).u64(0, gpa).u64(8, len));
    assert_eq!([unmap(0, 0x1000), unmap(0, 0x8_0000)], [Err(libc::EINVAL), Ok(0)]);
    assert_eq!(world.kernel.wired("a"), []);
    let more = (1..)
        .take_while(|n| world.call(world.a, vm::MMAP_MEMSEG, &mut map(n << 24, 0, 0, 0x1000, 7, 0)) == Ok(0));
    assert_eq!(more.count(), 15);
    assert_eq!(
        world.call(world.a, vm::MMAP_MEMSEG, &mut map(1 << 40, 0, 0, 0x1000, 7, 0)),
        Err(libc::ENOSPC)
    );
    assert_eq!(world.open("/dev/vmm/a").map(|fd| world.kernel.close(fd)), Ok(()));
}
