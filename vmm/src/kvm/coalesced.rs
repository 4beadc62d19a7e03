//! Writes to CONFIG_ADDRESS that do not exit: KVM puts them into a ring (`KVM_CAP_COALESCED_PIO`), and whoever exits next
//! takes them out.
//!
//! A configuration access by ports is a write to 0xcf8 and an access to 0xcfc, which exits in any case. The ring is one for
//! the VM, and CONFIG_ADDRESS one register for all vCPUs. So the ring is emptied into the register before any exit of any
//! vCPU is answered, by one at a time: what a vCPU wrote before it accessed 0xcfc is in the register by then.
//!
//! The zone has to take 4 bytes at 0xcf8, so it has 0xcf9 in it, the reset control register: a reset that a guest asks for
//! there is in the ring as well.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use devices::pci::cf8::Cf8;
use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::{Cap, IoEventAddress, VmFd};
use parking_lot::Mutex;

use super::vcpu::Vcpu;
use super::{KvmError, call};
use crate::layout;

const PAGE: usize = 4096;
/// `KVM_COALESCED_MMIO_MAX` of the kernel: as many as the page has room for. It keeps one of them free; but Linux before 6.12
/// counts modulo 2^32 first, so that it says at 85 that there is no room, and while another vCPU empties the ring it may fill it
/// once around. Then it is the guest's writes without accesses in between that are lost or mixed, and no other.
const ENTRIES: usize = (PAGE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>();
/// Bytes of the zone.
const ZONE: u32 = 4;

/// `struct kvm_coalesced_mmio`.
#[repr(C)]
#[derive(Default)]
struct Entry {
    address: AtomicU64,
    len: AtomicU32,
    pio: AtomicU32,
    data: AtomicU64,
}

/// The page of `struct kvm_coalesced_mmio_ring`. The kernel writes `last` and the entries from there on, this program
/// `first`: atomics, since both do so at any time.
#[repr(C)]
struct Ring {
    first: AtomicU32,
    last: AtomicU32,
    entries: [Entry; ENTRIES],
}

const _: () = assert!(size_of::<Entry>() == size_of::<kvm_coalesced_mmio>());
const _: () = assert!(size_of::<Ring>() <= PAGE);

impl Ring {
    /// Whether everything that was in it before the call has been taken out, and all that came of it is visible here.
    ///
    /// `last` is read before `first`: with a lap or more in between, `first` is then past whatever `last` was past. It is
    /// advanced with release after a write has had its effect, and read here with acquire.
    #[inline]
    fn is_empty(&self) -> bool {
        let last = self.last.load(Ordering::Acquire);
        self.first.load(Ordering::Acquire) == last
    }

    /// Gives what is in it now to `each`, in order: port and bytes. By one caller at a time. How many there were.
    fn drain(&self, mut each: impl FnMut(u64, &[u8])) -> u64 {
        // The kernel orders its writes to an entry before `last`.
        let last = self.last.load(Ordering::Acquire) as usize % ENTRIES;
        let mut at = self.first.load(Ordering::Relaxed) as usize % ENTRIES;
        let mut drained = 0;
        // What comes meanwhile is not taken, or a guest could keep a vCPU of its own here.
        while at != last {
            if let Some(entry) = self.entries.get(at) {
                let data = entry.data.load(Ordering::Relaxed).to_ne_bytes();
                let len = entry.len.load(Ordering::Relaxed) as usize;
                if let Some(data) = data.get(..len)
                    && entry.pio.load(Ordering::Relaxed) != 0
                {
                    each(entry.address.load(Ordering::Relaxed), data);
                }
            }
            at = (at + 1) % ENTRIES;
            drained += 1;
            // Only now, for is_empty(); from here on the kernel may write to the entry.
            self.first.store(at as u32, Ordering::Release);
        }
        drained
    }

    fn discard(&self) {
        self.first.store(self.last.load(Ordering::Acquire), Ordering::Release);
    }
}

/// The kernel's page, in this process.
struct Page(NonNull<Ring>);

// SAFETY: what is behind the address is atomics, and stays there as long as this does.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// It can be mapped through any vCPU.
    fn map(vcpu: &Vcpu, page: usize) -> io::Result<Page> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let offset = page.checked_mul(PAGE).ok_or_else(invalid)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, vcpu.fd().as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(ptr::null_mut(), PAGE, prot, libc::MAP_SHARED, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).map(Page).ok_or_else(invalid)
    }

    fn ring(&self) -> &Ring {
        // SAFETY: the mapping is as long as a ring and aligned to a page, and goes with this.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// Who takes writes out of the ring has this.
#[derive(Default)]
struct Drain {
    /// vCPUs run.
    running: bool,
    writes: u64,
}

/// The ring, and the register that its writes are for.
pub struct Coalesced {
    page: Page,
    registers: Arc<Cf8>,
    drain: Mutex<Drain>,
}

impl Coalesced {
    /// From now on writes to CONFIG_ADDRESS come this way, if KVM can do that. `vcpu` is any of the VM's. Each of them has to
    /// be given this before it runs.
    pub fn new(vm: &VmFd, vcpu: &Vcpu, registers: Arc<Cf8>) -> Result<Option<Coalesced>, KvmError> {
        let page = usize::try_from(vm.check_extension_int(Cap::CoalescedMmio)).unwrap_or(0);
        if page == 0 || !vm.check_extension(Cap::CoalescedPio) {
            return Ok(None);
        }
        let failed = |source| KvmError::Call { call: "mmap of KVM's ring of coalesced writes", source };
        let page = Page::map(vcpu, page).map_err(failed)?;
        let ports = IoEventAddress::Pio(u64::from(layout::CONFIG_ADDRESS_PORT));
        vm.register_coalesced_mmio(ports, ZONE).map_err(call("KVM_REGISTER_COALESCED_MMIO"))?;
        Ok(Some(Coalesced { page, registers, drain: Mutex::default() }))
    }

    /// vCPUs are about to run. What was written before the guest was stopped has no effect on it any more.
    pub fn start(&self) {
        let mut drain = self.drain.lock();
        self.page.ring().discard();
        drain.running = true;
    }

    /// No vCPU runs any more. When this returns, nothing that was written has an effect until [`Coalesced::start`].
    pub fn stop(&self) {
        self.drain.lock().running = false;
    }

    /// Lets the writes in the ring have their effects; before an exit is answered, and from time to time.
    #[inline]
    pub fn drain(&self) {
        // Without the lock, as almost always: a vCPU's own writes are in the ring before its exit is seen here, and an empty
        // ring says that whoever took them has let them have their effects.
        if !self.page.ring().is_empty() {
            self.drain_locked();
        }
    }

    fn drain_locked(&self) {
        let mut drain = self.drain.lock();
        if drain.running {
            drain.writes += self.page.ring().drain(|port, data| write(&self.registers, port, data));
        }
    }

    /// How many writes came this way.
    pub fn writes(&self) -> u64 {
        self.drain.lock().writes
    }
}

/// A write of any width that lies in the zone.
fn write(registers: &Cf8, port: u64, data: &[u8]) {
    match (port.checked_sub(u64::from(layout::CONFIG_ADDRESS_PORT)), data) {
        // What nearly all of them are, without a look at the functions.
        (Some(0), &[b0, b1, b2, b3]) => registers.set_address(u32::from_le_bytes([b0, b1, b2, b3])),
        (Some(offset), data) => {
            if let Ok(offset) = u16::try_from(offset) {
                registers.write(offset, data);
            }
        }
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests;
