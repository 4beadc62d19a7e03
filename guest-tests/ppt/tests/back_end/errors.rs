//! Every errno of the requests to a virtual machine, from whatever makes the kernel give it to what a user reads.

use std::path::Path;

use libc::{EBADF, EBUSY, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, ENOTTY, ENXIO};
use passthru::host::ppt::{GuestMemory, OpenError, PptFunction, Reason, Refusal, Vm};
use passthru::host::*;
use passthru::ports::MsiMessage;
use ppt_over_vfio::Options;

use crate::world::*;

const GUEST: u64 = 0xc000_0000;
const PAGE: BarRange = BarRange { bar: 2, offset: 0, len: 0x1000 };
/// Numbers that no file has.
const CLOSED: i32 = 7;

/// What came of it: what a user reads, and what a program does.
type Found = (String, Refusal);

fn opened(opened: Opened) -> Found {
    let error = opened.err().unwrap();
    let text = error.to_string();
    match error {
        OpenError::Bind { source, .. } => (text, source),
        other => panic!("{other}"),
    }
}

fn failed(error: HostError) -> Found {
    let text = error.to_string();
    let errno = error.source.errno();
    match error.source {
        Cause::Ppt(refusal) => {
            assert_eq!(errno, refusal.source.raw_os_error());
            (text, refusal)
        }
        other => panic!("{other}"),
    }
}

fn armed(vector: u16) -> VectorChange {
    let message = MsiMessage { address: 0xfee0_0000, data: 0x40 + u32::from(vector) };
    VectorChange { vector, state: VectorState::Armed(message) }
}

fn set(function: &impl HostFunction, kind: MessageKind, count: u16, vector: u16) -> Found {
    let mut errors = function.set_vectors(kind, count, &[armed(vector)]);
    assert_eq!(errors.len(), 1);
    let error = errors.remove(0);
    assert_eq!(error.operation, Operation::Vector { kind, vector });
    failed(error)
}

fn msi(function: &impl HostFunction) -> Found {
    set(function, MessageKind::Msi, 1, 0)
}

fn msix(function: &impl HostFunction) -> Found {
    set(function, MessageKind::Msix, 256, 0)
}

fn map(function: &impl HostFunction) -> Found {
    failed(function.map(PAGE, GUEST).unwrap_err())
}

fn world() -> World {
    World::new(Options::default())
}

/// An open function, and what becomes of a request whose argument is nowhere.
fn nowhere(request: i32, ask: impl Fn(&PptFunction<Calls>) -> Found) -> Found {
    let world = world();
    let function = world.function();
    world.alter(request, OnTheWay::Nowhere);
    ask(&function)
}

/// An open function, and what becomes of a request after something happened to it.
fn after(happens: impl Fn(&World, &PptFunction<Calls>), ask: impl Fn(&PptFunction<Calls>) -> Found) -> Found {
    let world = world();
    let function = world.function();
    happens(&world, &function);
    ask(&function)
}

fn on(kind: MessageKind) -> impl Fn(&World, &PptFunction<Calls>) {
    move |_, function| assert_eq!(function.set_vectors(kind, 1, &[armed(0)]).len(), 0)
}

fn fails(call: Fails) -> impl Fn(&World, &PptFunction<Calls>) {
    move |world, _| world.fail(call)
}

fn unbound(world: &World, _: &PptFunction<Calls>) {
    world.unbind_behind();
}

fn destroyed(world: &World, _: &PptFunction<Calls>) {
    world.control(DESTROY_VM, "a");
}

fn closed(world: &World, _: &PptFunction<Calls>) {
    world.close_behind("/dev/ppt0");
}

fn disable(kind: MessageKind) -> impl Fn(&PptFunction<Calls>) -> Found {
    move |function| failed(function.disable_vectors(kind).unwrap_err())
}

/// In a virtual machine whose file is this one.
fn in_file(world: &World, fd: i32) -> Found {
    let vm = Vm::with_file(world.sys.clone(), fd, GuestMemory::Wired);
    opened(PptFunction::open(&vm, Path::new("/dev/ppt0")))
}

/// What happens; the request's name, errno, and what it means.
type Case = (&'static str, fn() -> Found, &'static str, i32, Reason);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("another VM has it", || {
        let world = world();
        let _function = world.function();
        opened(world.open_in("b"))
    }, "VM_BIND_PPTDEV", EBUSY, Reason::OtherVm),
    ("this VM has it", || {
        let world = world();
        let _function = world.function();
        opened(world.open_in("a"))
    }, "VM_BIND_PPTDEV", EBUSY, Reason::OtherVm),
    ("no IOMMU", || opened(World::new(Options { iommu: false, ..Options::default() }).open_in("a")),
        "VM_BIND_PPTDEV", ENXIO, Reason::NoIommu),
    ("registers cannot be restored", || {
        let world = world();
        world.fail(Fails::ConfigWrite);
        opened(world.open_in("a"))
    }, "VM_BIND_PPTDEV", EIO, Reason::Registers),
    ("the VM's file is not open", || in_file(&world(), CLOSED), "VM_BIND_PPTDEV", EBADF, Reason::NotPpt),
    ("the VM's file is no VM's", || {
        let world = world();
        let ppt = passthru::host::ppt::sys::Sys::open(&*world.sys, c"/dev/ppt1").unwrap();
        in_file(&world, ppt)
    }, "VM_BIND_PPTDEV", ENOTTY, Reason::OldKernel),
    ("bind's argument", || {
        let world = world();
        world.alter(BIND, OnTheWay::Nowhere);
        opened(world.open_in("a"))
    }, "VM_BIND_PPTDEV", EFAULT, Reason::Other),
    ("unbound before its limits are asked for", || {
        let world = world();
        world.alter(LIMITS, OnTheWay::Unbound);
        opened(world.open_in("a"))
    }, "VM_GET_PPTDEV_LIMITS", EBUSY, Reason::NotBound),
    ("limits' argument", || {
        let world = world();
        world.alter(LIMITS, OnTheWay::Nowhere);
        opened(world.open_in("a"))
    }, "VM_GET_PPTDEV_LIMITS", EFAULT, Reason::Other),

    ("map of what is unbound", || after(unbound, map), "VM_MAP_PPTDEV_MMIO", EBUSY, Reason::NotBound),
    ("map in a VM that is destroyed", || after(destroyed, map), "VM_MAP_PPTDEV_MMIO", ENXIO, Reason::VmGone),
    ("map after close", || after(closed, map), "VM_MAP_PPTDEV_MMIO", EBADF, Reason::NotPpt),
    ("an eighth mapping", || after(|_, function| {
        (1..8).for_each(|n| function.map(PAGE, GUEST + n * 0x1000).unwrap());
    }, map), "VM_MAP_PPTDEV_MMIO", ENOSPC, Reason::NoSegment),
    ("part of a page of the guest", || after(|_, _| {}, |function| {
        failed(function.map(PAGE, GUEST + 0x800).unwrap_err())
    }), "VM_MAP_PPTDEV_MMIO", EINVAL, Reason::NotInBar),
    ("no page at all", || after(|_, _| {}, |function| {
        failed(function.map(BarRange { len: 0, ..PAGE }, GUEST).unwrap_err())
    }), "VM_MAP_PPTDEV_MMIO", EINVAL, Reason::NotInBar),
    ("behind the guest's last address", || after(|_, _| {}, |function| {
        failed(function.map(PAGE, 1 << 60).unwrap_err())
    }), "VM_MAP_PPTDEV_MMIO", ENOMEM, Reason::NoRoom),
    ("over another mapping", || after(|_, function| function.map(PAGE, GUEST).unwrap(), map),
        "VM_MAP_PPTDEV_MMIO", ENOMEM, Reason::NoRoom),
    ("a host that maps nothing", || after(fails(Fails::Map), map), "VM_MAP_PPTDEV_MMIO", ENOMEM, Reason::NoRoom),
    ("map's argument", || nowhere(MAP, map), "VM_MAP_PPTDEV_MMIO", EFAULT, Reason::Other),
    ("a host that unmaps nothing", || after(|world, function| {
        function.map(PAGE, GUEST).unwrap();
        world.fail(Fails::Unmap);
    }, |function| failed(function.unmap(PAGE, GUEST).unwrap_err())), "VM_UNMAP_PPTDEV_MMIO", EIO, Reason::Other),
    ("unmap after close", || after(closed, |function| failed(function.unmap(PAGE, GUEST).unwrap_err())),
        "VM_UNMAP_PPTDEV_MMIO", EBADF, Reason::NotPpt),
    ("unmap's argument", || nowhere(UNMAP, |function| failed(function.unmap(PAGE, GUEST).unwrap_err())),
        "VM_UNMAP_PPTDEV_MMIO", EFAULT, Reason::Other),

    ("MSI while MSI-X is on", || after(on(MessageKind::Msix), msi), "VM_PPTDEV_MSI", EBUSY, Reason::OtherKind),
    ("MSI of what is unbound", || after(unbound, msi), "VM_PPTDEV_MSI", EBUSY, Reason::OtherKind),
    ("more MSI than the host has", || after(|_, _| {}, |f| set(f, MessageKind::Msi, 16, 0)),
        "VM_PPTDEV_MSI", EINVAL, Reason::NoVector),
    ("more MSI than there can be", || after(|_, _| {}, |f| set(f, MessageKind::Msi, 64, 0)),
        "VM_PPTDEV_MSI", EINVAL, Reason::NoVector),
    ("a host that adds no handler for MSI", || after(fails(Fails::SetVectors), msi),
        "VM_PPTDEV_MSI", ENXIO, Reason::NoHandler),
    ("MSI after close", || after(closed, msi), "VM_PPTDEV_MSI", EBADF, Reason::NotPpt),
    ("MSI's argument", || nowhere(MSI, msi), "VM_PPTDEV_MSI", EFAULT, Reason::Other),
    ("MSI off after unbinding", || after(unbound, disable(MessageKind::Msi)),
        "VM_PPTDEV_MSI", EBUSY, Reason::NotBound),
    ("MSI-X while MSI is on", || after(on(MessageKind::Msi), msix), "VM_PPTDEV_MSIX", EBUSY, Reason::OtherKind),
    ("a vector of MSI-X that is not", || after(|_, _| {}, |f| set(f, MessageKind::Msix, 256, 256)),
        "VM_PPTDEV_MSIX", EINVAL, Reason::NoVector),
    ("the last number of MSI-X", || after(|_, _| {}, |f| set(f, MessageKind::Msix, 256, u16::MAX)),
        "VM_PPTDEV_MSIX", EINVAL, Reason::NoVector),
    ("a host that adds no handler for MSI-X", || after(fails(Fails::SetVectors), msix),
        "VM_PPTDEV_MSIX", ENXIO, Reason::NoHandler),
    ("MSI-X' argument", || nowhere(MSIX, msix), "VM_PPTDEV_MSIX", EFAULT, Reason::Other),
    ("MSI-X off after unbinding", || after(unbound, disable(MessageKind::Msix)),
        "VM_PPTDEV_DISABLE_MSIX", EBUSY, Reason::NotBound),
    ("MSI-X off in a VM that is destroyed", || after(destroyed, disable(MessageKind::Msix)),
        "VM_PPTDEV_DISABLE_MSIX", ENXIO, Reason::VmGone),
    ("a host that does not turn MSI-X off", || after(|world, function| {
        on(MessageKind::Msix)(world, function);
        world.fail(Fails::DisableVectors);
    }, disable(MessageKind::Msix)), "VM_PPTDEV_DISABLE_MSIX", EIO, Reason::Other),
    ("off's argument", || nowhere(DISABLE_MSIX, disable(MessageKind::Msix)),
        "VM_PPTDEV_DISABLE_MSIX", EFAULT, Reason::Other),
];

#[test]
fn each_errno_arrives_with_its_meaning_and_says_what_was_asked_of_which_device() {
    for (what, happens, request, errno, reason) in CASES {
        let (text, refusal) = happens();
        assert_eq!(refusal.reason, *reason, "{what}: {text}");
        assert_eq!(refusal.call, *request, "{what}: {text}");
        assert_eq!(refusal.source.raw_os_error(), Some(*errno), "{what}: {text}");
        let number = format!("os error {errno}");
        for part in ["/dev/ppt0: ", request, &reason.to_string(), &number] {
            assert!(text.contains(part), "{what}: {part:?} is not in {text:?}");
        }
    }
}

#[test]
fn what_is_not_mapped_any_more_is_unmapped() {
    for happens in [|_: &World, _: &PptFunction<Calls>| {}, unbound, destroyed] {
        let world = world();
        let function = world.function();
        function.map(PAGE, GUEST).unwrap();
        happens(&world, &function);
        for _ in 0..2 {
            function.unmap(PAGE, GUEST).unwrap();
            assert!(world.vmm.book().mapped.is_empty());
        }
        assert_eq!(world.take_requests().iter().filter(|request| **request == UNMAP).count(), 2);
    }
}

#[test]
fn a_vector_that_fails_is_silent_and_can_be_set_again() {
    let world = world();
    let function = world.function();
    for kind in [MessageKind::Msi, MessageKind::Msix] {
        world.fail(Fails::SetVectors);
        assert_eq!(function.set_vectors(kind, 1, &[armed(0)]).len(), 1);
        assert!(world.vmm.book().attached.is_empty());
        world.works();
        assert_eq!(function.set_vectors(kind, 1, &[armed(0)]).len(), 0);
        assert_eq!(world.vmm.book().attached.len(), 1);
        function.disable_vectors(kind).unwrap();
        assert!(world.vmm.book().attached.is_empty());
    }
}

#[test]
fn accesses_keep_their_errno_and_name_the_device() {
    let world = world();
    let function = world.function();
    for request in [CFG_READ, CFG_WRITE, BAR_READ, BAR_WRITE] {
        world.alter(request, OnTheWay::Nowhere);
    }
    let all = || {
        [
            function.config_read(0, &mut [0; 4]),
            function.config_write(0x88, &[0; 4]),
            function.bar_read(1, 0, &mut [0; 4]),
            function.bar_write(1, 0, &[0; 4]),
        ]
    };
    let check = |errno| {
        for error in all().map(Result::unwrap_err) {
            assert_eq!(error.source.errno(), Some(errno), "{error}");
            assert!(error.to_string().starts_with("/dev/ppt0: "), "{error}");
        }
    };
    check(EFAULT);
    world.works();
    world.close_behind("/dev/ppt0");
    check(EBADF);
}

#[test]
fn a_node_that_is_not_there_is_enoent() {
    let world = world();
    for path in ["/dev/ppt2", "/dev/ppt", "/dev/null"] {
        let error = PptFunction::open(&world.vm("a"), Path::new(path)).err().unwrap();
        assert!(matches!(&error, OpenError::NotThere { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
    let error = Vm::open(world.sys.clone(), "c", GuestMemory::Wired).err().unwrap();
    match &error {
        OpenError::Vm { path, source } => {
            assert_eq!((path.as_path(), source.raw_os_error()), (Path::new("/dev/vmm/c"), Some(ENOENT)));
        }
        other => panic!("{other}"),
    }
}
