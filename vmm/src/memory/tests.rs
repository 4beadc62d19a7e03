use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use std::io::Write;

use super::*;
use crate::layout;

fn ram(text: &str) -> GuestMemory {
    allocate(text.parse().unwrap(), Backing::Transparent).unwrap()
}

/// (start, length) of each region.
fn regions(memory: &GuestMemory) -> Vec<(u64, u64)> {
    memory.iter().map(|region| (region.start_addr().raw_value(), region.len())).collect()
}

#[test]
fn ram_lies_on_both_sides_of_the_hole() {
    for (size, expected) in [
        ("16M", vec![(0, 16 << 20)]),
        ("3G", vec![(0, 3 << 30)]),
        ("3074M", vec![(0, 3 << 30), (1 << 32, 2 << 20)]),
        ("5G", vec![(0, 3 << 30), (1 << 32, 2 << 30)]),
    ] {
        assert_eq!(regions(&ram(size)), expected, "{size}");
    }
}

#[test]
fn host_and_guest_addresses_are_congruent() {
    for region in ram("5G").iter() {
        let host = region.host_address().as_ptr() as u64;
        assert_eq!(host % HUGE_PAGE, region.start_addr().raw_value() % HUGE_PAGE);
        assert_eq!(region.get_host_address(MemoryRegionAddress(0)).unwrap() as u64, host);
        assert!(region.get_host_address(MemoryRegionAddress(region.len())).is_err());
    }
}

#[test]
fn ram_is_zero_and_holds_what_is_written() {
    let memory = ram("4G");
    for address in [0, 0x10_0000, (3 << 30) - 8, 1 << 32, (5 << 30) - 8] {
        let address = GuestAddress(address);
        assert_eq!(memory.read_obj::<u64>(address).unwrap(), 0);
        memory.write_obj(0x1122_3344_5566_7788u64, address).unwrap();
        assert_eq!(memory.read_obj::<u64>(address).unwrap(), 0x1122_3344_5566_7788);
    }
    for address in [(3 << 30) - 4, 3 << 30, (1 << 32) - 4, (5 << 30) - 4, u64::MAX - 3] {
        assert!(memory.write_obj(0u64, GuestAddress(address)).is_err(), "{address:#x}");
    }
}

#[test]
fn a_region_gives_no_slice_beyond_its_end() {
    let memory = ram("16M");
    let region = memory.iter().next().unwrap();
    let length = region.len() as usize;
    for (offset, count, inside) in
        [(0, length, true), (length - 1, 1, true), (length, 0, true), (length, 1, false), (1, length, false)]
    {
        let slice = region.get_slice(MemoryRegionAddress(offset as u64), count);
        assert_eq!(slice.is_ok(), inside, "{offset:#x} + {count:#x}");
    }
    assert!(region.get_slice(MemoryRegionAddress(u64::MAX), 2).is_err());
}

/// A clone keeps the memory mapped after the first owner is gone.
#[test]
fn clones_share_memory() {
    let memory = ram("16M");
    let clone = memory.clone();
    memory.write_obj(7u32, GuestAddress(0x1000)).unwrap();
    drop(memory);
    assert_eq!(clone.read_obj::<u32>(GuestAddress(0x1000)).unwrap(), 7);
}

/// Flags of the mapping that holds `address`, from /proc/self/smaps.
fn mapping_flags(address: u64) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let bounds = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16));
            inside = matches!(bounds, (Ok(start), Ok(end)) if start <= address && address < end);
        } else if inside && first == "VmFlags:" {
            return line.to_owned();
        }
    }
    panic!("no mapping at {address:#x}");
}

#[test]
fn ram_stays_out_of_core_files_and_forks() {
    let memory = ram("16M");
    let region = memory.iter().next().unwrap();
    let flags = mapping_flags(region.host_address().as_ptr() as u64);
    // dd: do not dump, dc: do not copy on fork.
    assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
    if std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        assert!(flags.contains(" hg"), "{flags}");
    }
}

#[test]
fn too_much_memory_is_an_error_with_size_and_errno() {
    // Far more than the heuristic overcommit lets one mapping have.
    let error = allocate(RamSize::MAX.try_into().unwrap(), Backing::Transparent);
    match error {
        Err(Error::Map { ref range, ref source, .. }) => {
            assert_eq!(range.start, layout::HIGH_RAM_START);
            assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
            let message = error.as_ref().unwrap_err().to_string();
            assert!(message.contains("4194304 MiB") && message.contains("os error 12"), "{message}");
        }
        // A host that overcommits without limit (vm.overcommit_memory = 1) maps it.
        other => assert!(other.is_ok(), "{other:?}"),
    }
}

#[test]
fn missing_huge_pages_are_counted() {
    let size = RamSize::try_from(64 << 30).unwrap();
    let needed = size.bytes() / HUGE_PAGE;
    match (pool_state(), allocate(size, Backing::ReservedHugePages)) {
        (None, result) => assert!(matches!(result, Err(Error::NoHugePages { .. })), "{result:?}"),
        (Some(pool), Err(Error::TooFewHugePages { needed: n, available, total, .. })) => {
            assert_eq!((n, available, total), (needed, pool.available, pool.total));
            let message = Error::TooFewHugePages { size, needed: 32768, available: 4, total: 10 }.to_string();
            assert_eq!(
                message,
                "guest memory of 65536 MiB: 32768 huge pages of 2 MiB are needed, 4 of the 10 reserved ones are \
                 free; reserve more with: echo 32774 | sudo tee \
                 /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
            );
        }
        (Some(pool), result) => assert!(pool.available >= needed, "{result:?}"),
    }
}

#[test]
fn ram_of_reserved_huge_pages() {
    let Some(_pages) = HugePages::reserve(8) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED ram_of_reserved_huge_pages: 8 huge pages of 2 MiB cannot be reserved (needs root)"
        );
        return;
    };
    let memory = allocate(RamSize::try_from(16 << 20).unwrap(), Backing::ReservedHugePages).unwrap();
    for region in memory.iter() {
        let host = region.host_address().as_ptr() as u64;
        assert_eq!(host % HUGE_PAGE, 0);
        let flags = mapping_flags(host);
        assert!(flags.contains(" ht") && flags.contains(" dd") && flags.contains(" dc"), "{flags}");
    }
    memory.write_obj(1u8, GuestAddress((16 << 20) - 1)).unwrap();
    let pool = pool_state().unwrap();
    drop(memory);
    assert_eq!(pool_state().unwrap().available, pool.available + 8);
}

#[test]
fn map_of_small_and_large_guests() {
    use MapKind::{Ram, Reserved};
    let entries = |size: &str| -> Vec<(u64, u64, MapKind)> {
        memory_map(&ram(size)).iter().map(|e| (e.range.start, e.range.end, e.kind)).collect()
    };
    assert_eq!(
        entries("256M"),
        [
            (0, 0xa_0000, Ram),
            (0xa_0000, 0x10_0000, Reserved),
            (0x10_0000, 256 << 20, Ram),
            (0xe000_0000, 0xf000_0000, Reserved),
            (0xfeff_c000, 0xff00_0000, Reserved),
        ]
    );
    assert_eq!(
        entries("5G"),
        [
            (0, 0xa_0000, Ram),
            (0xa_0000, 0x10_0000, Reserved),
            (0x10_0000, 0xc000_0000, Ram),
            (0xe000_0000, 0xf000_0000, Reserved),
            (0xfeff_c000, 0xff00_0000, Reserved),
            (1 << 32, 6 << 30, Ram),
        ]
    );
}

/// More reserved pages than before, until it is dropped.
struct HugePages {
    before: u64,
}

impl HugePages {
    const FILE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn reserve(pages: u64) -> Option<HugePages> {
        let before = pool_state()?;
        let more = HugePages { before: before.total };
        std::fs::write(Self::FILE, (before.total + pages).to_string()).ok()?;
        (pool_state()?.available >= before.available + pages).then_some(more)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::FILE, self.before.to_string());
    }
}
