//! A function's BARs: mapped for the guest and for other functions' DMA, and accessed from here.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::direct::Direct;
use super::ioctl::device::RegionInfo;
use super::mapping::Mapping;
use crate::host::{BARS, BarRange, Cause, Region};
use crate::ports::{Access, MemoryPort};

/// Puts BARs within reach of other functions' DMA (peer-to-peer), where the IOMMU can.
pub trait Peers {
    /// Maps a BAR at this IOVA; says whether that went well.
    fn map_peer(&self, device: &str, guest: u64, host: *mut u8, len: u64) -> bool;
    /// Undoes it; says whether it is gone.
    fn unmap_peer(&self, device: &str, guest: u64, len: u64) -> bool;
}

/// The BARs of a device that is open.
pub struct Bars {
    // Both before the device's file.
    mapped: Mutex<Mapped>,
    direct: Direct,
    regions: [RegionInfo; BARS],
    device: Arc<File>,
}

#[derive(Default)]
struct Mapped {
    /// Where each part is that is or was mapped, and by whom it is reached.
    places: HashMap<(BarRange, u64), Reached>,
    /// Parts that were mapped once, in this process.
    here: HashMap<BarRange, Mapping>,
}

/// Who reaches a part of a BAR at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    guest: bool,
    peers: bool,
}

impl Bars {
    /// The BARs of a device, as the kernel describes them. `page` is the host's page size.
    pub fn new(device: Arc<File>, mut regions: [RegionInfo; BARS], page: u64) -> Bars {
        for region in &mut regions {
            // The kernel says that a BAR smaller than a page can be mapped when it has reserved the rest of the page
            // (`vfio_pci_probe_mmaps`), and then maps whole pages of it (`vfio_pci_core_mmap`).
            if region.size > 0 && region.size < page && region.mappable == [0..region.size] {
                region.mappable = vec![0..page];
            }
        }
        Bars { mapped: Mutex::default(), direct: Direct::default(), regions, device }
    }

    /// What they are, for a description of the function.
    pub fn description(&self) -> [Region; BARS] {
        self.regions.clone().map(|r| Region { size: r.size, mappable: r.mappable, accessible: true })
    }

    /// The BAR that holds this range.
    fn region(&self, range: BarRange) -> io::Result<&RegionInfo> {
        let region = self.regions.get(usize::from(range.bar)).ok_or(io::ErrorKind::NotFound)?;
        match range.offset.checked_add(range.len) {
            Some(end) if end <= region.size => Ok(region),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Reads part of a BAR.
    pub fn read(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let region = self.region(BarRange { bar, offset, len: data.len() as u64 })?;
        match self.direct.read(&self.device, bar, region, offset, data) {
            Some(read) => read,
            None => self.device.read_exact_at(data, region.file_offset + offset),
        }
    }

    /// Writes part of a BAR.
    pub fn write(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        let region = self.region(BarRange { bar, offset, len: data.len() as u64 })?;
        match self.direct.write(&self.device, bar, region, offset, data) {
            Some(written) => written,
            None => self.device.write_all_at(data, region.file_offset + offset),
        }
    }

    /// Lets the guest reach a part of a BAR, and other functions too where they can. After an error neither does.
    pub fn map(
        &self,
        name: &str,
        range: BarRange,
        guest: u64,
        memory: &dyn MemoryPort,
        peers: &impl Peers,
    ) -> Result<(), Cause> {
        let mut mapped = self.mapped.lock();
        let Mapped { places, here } = &mut *mapped;
        let mapping = match here.entry(range) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let region = self.regions.get(usize::from(range.bar));
                let region = region.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                let file_offset = region.file_offset.saturating_add(range.offset);
                entry.insert(Mapping::new(&self.device, file_offset, range.offset, range.len)?)
            }
        };
        let host = mapping.address();
        // SAFETY: the mapping lives as long as this function, which is unmapped from the guest before it is closed.
        unsafe { memory.map(guest, host, range.len, Access::ReadWrite) }?;
        // Decoding is on in the function, or the IOMMU could not pin what is behind the mapping. Not every IOMMU can map
        // it at all; the guest reaches it in any case.
        let peers = peers.map_peer(name, guest, host, range.len);
        places.insert((range, guest), Reached { guest: true, peers });
        Ok(())
    }

    /// Undoes [`Bars::map`]: other functions first, which nobody stops meanwhile. After an error part of it may be there,
    /// and the call can be made again.
    pub fn unmap(
        &self,
        name: &str,
        range: BarRange,
        guest: u64,
        memory: &dyn MemoryPort,
        peers: &impl Peers,
    ) -> Result<(), Cause> {
        let mut mapped = self.mapped.lock();
        let Some(reached) = mapped.places.get_mut(&(range, guest)) else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        reached.peers = reached.peers && !peers.unmap_peer(name, guest, range.len);
        if reached.guest {
            memory.unmap(guest, range.len)?;
            reached.guest = false;
        }
        if reached.peers {
            return Err(io::Error::other("other functions still reach it by DMA").into());
        }
        mapped.places.remove(&(range, guest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;

    use super::*;
    use crate::pci::Space;
    use crate::ports::{DmaRegion, PortError, PortOperation, Trap};

    /// The hypervisor and the IOMMU: what is mapped in each, and which call to either fails.
    #[derive(Default)]
    struct Sides(Mutex<Book>);

    #[derive(Default)]
    struct Book {
        guest: BTreeMap<u64, u64>,
        peers: BTreeMap<u64, u64>,
        calls: usize,
        fail: Option<usize>,
    }

    impl Sides {
        fn call(&self, change: impl FnOnce(&mut Book)) -> bool {
            let mut book = self.0.lock();
            book.calls += 1;
            let done = book.fail != Some(book.calls - 1);
            if done {
                change(&mut book);
            }
            done
        }

        fn guest(&self, operation: PortOperation, change: impl FnOnce(&mut Book)) -> Result<(), PortError> {
            match self.call(change) {
                true => Ok(()),
                false => Err(operation.failed()(io::ErrorKind::OutOfMemory)),
            }
        }
    }

    impl MemoryPort for Sides {
        unsafe fn map(&self, guest: u64, _: *mut u8, len: u64, _: Access) -> Result<(), PortError> {
            self.guest(PortOperation::Map { guest, len }, |book| {
                assert!(book.guest.insert(guest, len).is_none())
            })
        }

        fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
            self.guest(PortOperation::Unmap { guest, len }, |book| {
                assert_eq!(book.guest.remove(&guest), Some(len))
            })
        }

        fn trap(&self, _: &[(Space, Range<u64>)], _: &[Trap]) -> Result<(), PortError> {
            Ok(())
        }

        fn dma_regions(&self) -> Vec<DmaRegion> {
            Vec::new()
        }
    }

    impl Peers for Sides {
        fn map_peer(&self, _: &str, guest: u64, _: *mut u8, len: u64) -> bool {
            self.call(|book| assert!(book.peers.insert(guest, len).is_none()))
        }

        fn unmap_peer(&self, _: &str, guest: u64, len: u64) -> bool {
            self.call(|book| assert_eq!(book.peers.remove(&guest), Some(len)))
        }
    }

    fn bars() -> Bars {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(1 << 20).unwrap();
        let mut regions: [RegionInfo; BARS] = Default::default();
        regions[0] = RegionInfo { size: 0x4000, file_offset: 0x1000, mappable: vec![0..0x4000] };
        regions[2] = RegionInfo { size: 0x100, file_offset: 0x8000, mappable: vec![0..0x100] };
        regions[3] = RegionInfo { size: 0x100, file_offset: 0x9000, mappable: vec![] };
        Bars::new(Arc::new(file), regions, 0x1000)
    }

    const WHOLE: BarRange = BarRange { bar: 0, offset: 0, len: 0x4000 };

    #[test]
    fn hypervisor_and_iommu_change_together_or_what_is_left_is_known() {
        // Mapped, unmapped, and mapped elsewhere, each a call to either side.
        for fail in 0..6 {
            let (bars, sides) = (bars(), Sides::default());
            sides.0.lock().fail = Some(fail);
            let results = [
                bars.map("x", WHOLE, 0x10_0000, &sides, &sides).is_ok(),
                bars.unmap("x", WHOLE, 0x10_0000, &sides, &sides).is_ok(),
                bars.map("x", WHOLE, 0x20_0000, &sides, &sides).is_ok(),
            ];
            let expected = match fail {
                0 => [false, false, true],
                // Peer-to-peer is best effort.
                1 => [true, true, true],
                2 | 3 => [true, false, true],
                4 => [true, true, false],
                _ => [true, true, true],
            };
            assert_eq!(results, expected, "call {fail}");
            {
                let book = sides.0.lock();
                let places = &bars.mapped.lock().places;
                let known = |of: fn(&Reached) -> bool| {
                    let mut known: Vec<u64> = places.iter().filter(|p| of(p.1)).map(|p| p.0.1).collect();
                    known.sort_unstable();
                    known
                };
                assert_eq!(known(|r| r.guest), book.guest.keys().copied().collect::<Vec<_>>(), "call {fail}");
                assert_eq!(known(|r| r.peers), book.peers.keys().copied().collect::<Vec<_>>(), "call {fail}");
            }
            // Again, as the address space does: each of its own, and none of the other's.
            for guest in [0x10_0000, 0x20_0000] {
                let _ = bars.unmap("x", WHOLE, guest, &sides, &sides);
            }
            let book = sides.0.lock();
            assert!(book.guest.is_empty() && book.peers.is_empty(), "call {fail}");
            assert!(bars.mapped.lock().places.is_empty());
        }
    }

    #[test]
    fn small_bars_are_mapped_with_their_page_where_the_kernel_reserved_it() {
        let bars = bars();
        let shown = bars.description();
        assert_eq!([&shown[2].mappable, &shown[3].mappable], [&vec![0..0x1000], &vec![]]);
        let sides = Sides::default();
        let page = BarRange { bar: 2, offset: 0, len: 0x1000 };
        bars.map("x", page, 0x3000, &sides, &sides).unwrap();
        assert_eq!(sides.0.lock().guest, [(0x3000, 0x1000)].into());
        assert_eq!(bars.mapped.lock().here[&page].address() as usize % 0x1000, 0);
    }

    #[test]
    fn accesses_stay_inside_their_bar() {
        let bars = bars();
        for bar in [0, 2, 3] {
            let size = bars.regions[usize::from(bar)].size;
            bars.write(bar, size - 8, &[bar + 1; 8]).unwrap();
            let mut data = [0; 8];
            bars.read(bar, size - 8, &mut data).unwrap();
            assert_eq!(data, [bar + 1; 8]);
            for offset in [size - 7, size, u64::MAX - 3] {
                assert!(
                    bars.read(bar, offset, &mut data).is_err() && bars.write(bar, offset, &data).is_err()
                );
            }
            assert_eq!(data, [bar + 1; 8], "the page behind a small BAR is not its own for accesses");
        }
        assert!(bars.read(1, 0, &mut [0]).is_err() && bars.read(6, 0, &mut [0]).is_err());
    }
}
