use passthru::host::Region;

use crate::abi::ppt;
use crate::test_support::{Bytes, OLD, World};
use crate::{Interface, Options};

const ONES: u32 = 0xffff_ffff;

#[test]
fn nodes_are_those_of_the_functions() {
    let world = World::new(Options::default());
    for path in ["/dev/ppt0", "/dev/ppt1", "/dev/vmmctl", "/dev/vmm/a"] {
        assert!(world.open(path).is_ok(), "{path}");
    }
    for path in [
        "/dev/ppt2",
        "/dev/ppt",
        "/dev/ppt00",
        "/dev/ppt+1",
        "/dev/ppt-1",
        "/dev/ppt1 ",
        "/dev/pptx",
        "ppt0",
        "/dev/ppt99999999999999999999",
        "/dev/vmm/",
        "/dev/vmm/c",
        "/dev/vmm",
        "/dev/null",
        "",
    ] {
        assert_eq!(world.open(path), Err(libc::ENOENT), "{path}");
    }
}

#[test]
fn configuration_is_read_and_written_whoever_has_the_function() {
    let world = World::new(Options::default());
    for (offset, width, expected) in [
        (0, 4, Ok(0x0001_5350)),
        (0, 2, Ok(0x5350)),
        (1, 1, Ok(0x53)),
        (2, 2, Ok(1)),
        (3, 2, Ok(0)),
        (0xfc, 4, Ok(0)),
        (0xff, 1, Ok(0)),
        (0xfd, 4, Ok(ONES)),
        (0x100, 4, Ok(ONES)),
        (0x1_0000, 2, Ok(0xffff)),
        (u64::MAX, 1, Ok(0xff)),
        (u64::MAX, 4, Ok(ONES)),
        (0, 0, Err(libc::EINVAL)),
        (0, 3, Err(libc::EINVAL)),
        (0, 5, Err(libc::EINVAL)),
        (0, 8, Err(libc::EINVAL)),
        (0, ONES, Err(libc::EINVAL)),
    ] {
        let read = world.config(0, ppt::CFG_READ, offset, width, 0x5555_5555);
        assert_eq!(read, expected, "{width} bytes at {offset:#x}");
        let written = world.config(1, ppt::CFG_WRITE, offset, width, 0);
        assert_eq!(written.is_ok(), expected.is_ok(), "{width} bytes at {offset:#x}");
    }
    world.take_calls();
    world.config(0, ppt::CFG_WRITE, 0x3c, 2, 0xffff_0a0b).unwrap();
    assert_eq!(world.take_calls(), ["config 0x3c = [b, a]"]);
    world.config(0, ppt::CFG_WRITE, 0x100, 4, 0).unwrap();
    assert_eq!(world.take_calls(), [""; 0], "nobody is there");
    world.fail(Some("config"));
    assert_eq!(world.config(0, ppt::CFG_WRITE, 4, 2, 0), Ok(0), "as on the bus");
    world.fail(Some("config read"));
    assert_eq!(world.config(0, ppt::CFG_READ, 0, 4, 0), Ok(ONES), "as on the bus");
}

#[test]
fn bars_are_told_apart_and_stay_where_they_are() {
    let world = World::new(Options::default());
    let expected = [
        Ok((ppt::TYPE_MEMORY_32, 0x1000)),
        Ok((ppt::TYPE_IO, 0x40)),
        Ok((ppt::TYPE_MEMORY_64, 1 << 20)),
        Err(libc::ENOENT),
        Ok((ppt::TYPE_MEMORY_64, 0x1_0000)),
        Err(libc::ENOENT),
        Err(libc::EINVAL),
        Err(libc::EINVAL),
    ];
    let mut memory = Vec::new();
    for n in [0, 1] {
        for (bar, expected) in (0..).zip(expected) {
            let found = world.query(n, bar);
            assert_eq!(found.map(|(kind, _, size)| (kind, size)), expected, "BAR {bar}");
            assert_eq!(found, world.query(n, bar));
            if let Ok((kind, base, size)) = found {
                assert!(base > 0);
                if kind != ppt::TYPE_IO {
                    assert_eq!(base % 4096, 0);
                    memory.push((base, base + size));
                }
            }
        }
    }
    assert_eq!(world.query(0, ONES), Err(libc::EINVAL));
    memory.sort_unstable();
    assert!(memory.windows(2).all(|pair| pair[0].1 < pair[1].0), "{memory:x?}");
}

#[test]
fn bars_that_the_host_has_no_room_for_are_not_there() {
    let world = World::with(Options::default(), |description, _| {
        description.bars[1].size = 1 << 16;
        description.bars[2] = Region { size: 1 << 52, ..Region::default() };
    });
    assert_eq!([1, 2].map(|bar| world.query(0, bar)), [Err(libc::ENOENT); 2]);
    assert_eq!(world.port(0, ppt::BAR_READ, [1, 0, 4, 0]), Err(libc::EINVAL));
}

#[test]
fn ports_are_accessed_inside_of_their_bar_only() {
    let world = World::new(Options::default());
    let id = 0x5054_4c53;
    for (access, expected) in [
        ([1, 0, 4], Ok(id)),
        ([1, 0, 2], Ok(id & 0xffff)),
        ([1, 3, 1], Ok(id >> 24)),
        ([1, 0x3f, 1], Ok(0)),
        ([1, 0x3c, 4], Ok(0)),
        ([1, 0x3d, 4], Err(libc::EINVAL)),
        ([1, 0x40, 1], Err(libc::EINVAL)),
        ([1, ONES, 4], Err(libc::EINVAL)),
        ([1, 0, 0], Err(libc::EINVAL)),
        ([1, 0, 3], Err(libc::EINVAL)),
        ([1, 0, 8], Err(libc::EINVAL)),
        ([0, 0, 4], Err(libc::EINVAL)),
        ([2, 0, 4], Err(libc::EINVAL)),
        ([3, 0, 4], Err(libc::EINVAL)),
        ([6, 0, 4], Err(libc::EINVAL)),
        ([257, 0, 4], Err(libc::EINVAL)),
        ([ONES, 0, 4], Err(libc::EINVAL)),
    ] {
        let [bar, offset, width] = access;
        assert_eq!(world.port(0, ppt::BAR_READ, [bar, offset, width, ONES]), expected, "{access:x?}");
        let written = world.port(0, ppt::BAR_WRITE, [bar, offset, width, 0]);
        assert_eq!(written.is_ok(), expected.is_ok(), "{access:x?}");
    }
    world.port(0, ppt::BAR_WRITE, [1, 4, 4, 0x0403_0201]).unwrap();
    world.port(0, ppt::BAR_WRITE, [1, 5, 2, 0xffff_aabb]).unwrap();
    assert_eq!(world.port(0, ppt::BAR_READ, [1, 4, 4, 0]), Ok(0x04aa_bb01));
    world.fail(Some("read of"));
    assert_eq!(world.port(0, ppt::BAR_READ, [1, 4, 2, 0]), Ok(0xffff), "as on the bus");
}

#[test]
fn requests_and_addresses_that_are_none_are_told() {
    let world = World::new(Options::default());
    for request in [ppt::CFG_READ, ppt::CFG_WRITE, ppt::BAR_QUERY, ppt::BAR_READ, ppt::BAR_WRITE] {
        assert_eq!(world.call_nowhere(world.ppt[0], request), Err(libc::EFAULT), "{request:#x}");
        assert_eq!(world.call_nowhere(-1, request), Err(libc::EBADF), "{request:#x}");
        assert_eq!(world.call_nowhere(world.control, request), Err(libc::ENOTTY), "{request:#x}");
    }
    for request in [0, -1, 0x50_5400, 0x50_5406, 0x76_6c02] {
        assert_eq!(world.call_nowhere(world.ppt[0], request), Err(libc::ENOTTY), "{request:#x}");
    }
}

#[test]
fn the_bar_of_the_msix_table_is_mapped_here() {
    let world = World::bound(Options::default());
    let table = world.mmap(world.ppt[0], 0x1_0000, 0).unwrap();
    let again = world.mmap(world.ppt[0], 0x800, 0xf000).unwrap();
    // SAFETY: the mappings are that long, and memory of the simulated function.
    unsafe {
        table.add(0xf004).cast::<u32>().write_volatile(0x600d_f00d);
        assert_eq!(again.add(4).cast::<u32>().read_volatile(), 0x600d_f00d);
    }
    let mut read = [0; 4];
    passthru::host::HostFunction::bar_read(&*world.functions[0], 4, 0xf004, &mut read).unwrap();
    assert_eq!(u32::from_le_bytes(read), 0x600d_f00d, "it is the function's");
    assert!(world.vmm.book().mapped.is_empty(), "the guest has nothing of it");
    use passthru::host::ppt::sys::Sys;
    world.take_calls();
    world.kernel.close(world.ppt[0]);
    // SAFETY: what was mapped, and is used no more.
    unsafe {
        world.kernel.munmap(again, 0x800);
        world.kernel.munmap(table, 0x1_0000);
        world.kernel.munmap(table, 0x1_0000);
    }
    assert_eq!(world.take_calls().len(), 2, "each once");
}

#[test]
fn nothing_else_is_mapped_here() {
    let world = World::new(Options::default());
    let [ppt, _] = world.ppt;
    for (fd, len, offset, expected) in [
        (-1, 0x1000, 0, libc::EBADF),
        (world.control, 0x1000, 0, libc::ENODEV),
        (world.a, 0x1000, 0, libc::ENODEV),
        (ppt, 0, 0, libc::EINVAL),
        (ppt, 0x1000, 0x10, libc::EINVAL),
        (ppt, 0x1000, 1 << 63, libc::EINVAL),
        (ppt, usize::MAX, 0, libc::EINVAL),
        (ppt, 0x1_1000, 0, libc::ENXIO),
        (ppt, 0x1000, 0x1_0000, libc::ENXIO),
        (ppt, 1, (1 << 63) - 0x1000, libc::ENXIO),
    ] {
        assert_eq!(world.mmap(fd, len, offset), Err(expected), "{len:#x} at {offset:#x}");
    }
    assert_eq!(World::new(OLD).mmap(world.ppt[0], 0x1000, 0), Err(libc::ENODEV));
    let kept = World::with(Options::default(), |d, _| d.bars[4].mappable = vec![0..0x1000, 0x2000..0x1_0000]);
    assert_eq!(kept.mmap(kept.ppt[0], 0x1_0000, 0), Err(libc::ENXIO), "not by the host");
    assert!(kept.mmap(kept.ppt[0], 0x1000, 0x2000).is_ok());
    // A BAR smaller than a page, of which the host gives the whole page.
    let small = World::with(Options::default(), |d, _| {
        (d.bars[4].size, d.bars[4].mappable) = (0x800, vec![0..0x1000]);
    });
    assert!(small.mmap(small.ppt[0], 0x800, 0).is_ok());
    assert_eq!(small.mmap(small.ppt[0], 0x1001, 0), Err(libc::ENXIO));
    let absent = World::with(Options::default(), |d, _| d.bars[4].size = 0);
    assert_eq!(absent.mmap(absent.ppt[0], 0x1000, 0), Err(libc::EINVAL));
    // The MSI capability points behind that of MSI-X.
    let without = World::with(Options::default(), |d, _| d.config[0x51] = 0x80);
    assert_eq!(without.mmap(without.ppt[0], 0x1000, 0), Err(libc::EINVAL));
}

#[test]
fn a_node_is_opened_by_many_and_closed_without_effect() {
    use passthru::host::ppt::sys::Sys;
    let world = World::bound(Options { interface: Interface::Now, iommu: true });
    let second = world.open("/dev/ppt0").unwrap();
    world.kernel.close(world.ppt[0]);
    world.kernel.close(world.ppt[0]);
    assert_eq!(world.take_calls(), [""; 0], "it stays bound");
    assert_eq!(world.limits(world.a, 0), Err(libc::EBADF));
    let mut limits = Bytes::new(12).int(0, second);
    assert_eq!(world.call(world.a, crate::abi::vm::GET_PPTDEV_LIMITS, &mut limits), Ok(0));
}
