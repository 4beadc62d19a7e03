//! KVM's memory slots, and the traps of the bus: the guest's address space.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use passthru::pci::Space;
use passthru::ports::{Access, DmaRegion, MemoryPort, PortError, PortOperation, Trap};

use crate::bus::Bus;
use crate::memory::GuestMemory;

/// The guest's address space.
pub struct KvmMemory {
    vm: Arc<VmFd>,
    bus: Arc<Bus>,
    ram: GuestMemory,
    slots: Mutex<Slots>,
    /// Calls of `KVM_SET_USER_MEMORY_REGION`.
    calls: AtomicU64,
}

#[derive(Default)]
struct Slots {
    /// Slot number by guest address and length.
    used: BTreeMap<(u64, u64), u32>,
    /// Numbers given back.
    free: Vec<u32>,
    next: u32,
}

impl KvmMemory {
    /// An address space with the guest's RAM in it.
    pub fn new(vm: Arc<VmFd>, bus: Arc<Bus>, ram: GuestMemory) -> Result<KvmMemory, PortError> {
        let memory = KvmMemory { vm, bus, ram, slots: Mutex::default(), calls: AtomicU64::new(0) };
        for region in memory.dma_regions() {
            // SAFETY: the RAM is a field of this value, and no vCPU runs when this value is gone.
            unsafe { memory.map(region.guest, region.host, region.len, Access::ReadWrite)? };
        }
        Ok(memory)
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &GuestMemory {
        &self.ram
    }

    /// Calls of `KVM_SET_USER_MEMORY_REGION` so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn set(&self, slot: u32, guest: u64, host: u64, len: u64, flags: u32) -> Result<(), kvm_ioctls::Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: guest,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: the callers keep the memory mapped while the slot is there; a length of 0 takes a slot away.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

impl MemoryPort for KvmMemory {
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError> {
        let flags = if access == Access::ReadOnly { KVM_MEM_READONLY } else { 0 };
        let mut slots = self.slots.lock();
        let slot = slots.free.pop().unwrap_or(slots.next);
        let done = self.set(slot, guest, host as u64, len, flags);
        if done.is_ok() {
            slots.used.insert((guest, len), slot);
            slots.next = slots.next.max(slot.saturating_add(1));
        } else if slot < slots.next {
            slots.free.push(slot);
        }
        done.map_err(PortOperation::Map { guest, len }.failed())
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        let failed = PortOperation::Unmap { guest, len };
        let mut slots = self.slots.lock();
        let slot = slots.used.get(&(guest, len)).copied();
        let slot = slot.ok_or(io::ErrorKind::NotFound).map_err(failed.failed())?;
        self.set(slot, guest, 0, 0, 0).map_err(failed.failed())?;
        slots.used.remove(&(guest, len));
        slots.free.push(slot);
        Ok(())
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let in_use = |error| io::Error::new(io::ErrorKind::AddrInUse, error);
        self.bus.trap(remove, add).map_err(in_use).map_err(PortOperation::Trap.failed())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};
        let region = |region: &<GuestMemory as GuestMemoryBackend>::R| {
            let host = region.get_host_address(MemoryRegionAddress(0)).ok()?;
            Some(DmaRegion { guest: region.start_addr().raw_value(), host, len: region.len(), file: None })
        };
        self.ram.iter().filter_map(region).collect()
    }
}
