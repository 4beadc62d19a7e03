//! Physical memory outside the image: RAM that devices may write, BARs, tables of the firmware.

use core::arch::asm;

use crate::paging::{self, Caching};

/// A range of physical memory, accessed with volatile reads and writes only. Offsets are checked; an access that
/// does not fit in the window is a panic.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    address: u64,
    length: u64,
}

macro_rules! window_access {
    ($read:ident, $write:ident, $type:ty) => {
        #[must_use]
        #[inline]
        pub fn $read(&self, offset: u64) -> $type {
            let address = self.place(offset, size_of::<$type>() as u64) as *const $type;
            // SAFETY: the window is mapped and holds no Rust object.
            unsafe { address.read_volatile() }
        }

        #[inline]
        pub fn $write(&self, offset: u64, value: $type) {
            let address = self.place(offset, size_of::<$type>() as u64) as *mut $type;
            // SAFETY: as for reads.
            unsafe { address.write_volatile(value) }
        }
    };
}

impl Window {
    /// Maps registers or other memory of a device.
    ///
    /// # Panics
    /// If the range overlaps the image, or there are no page tables left for it.
    #[must_use]
    pub fn device(address: u64, length: u64) -> Self {
        Self::map(address, length, Caching::Uncached)
    }

    /// Maps RAM.
    ///
    /// # Panics
    /// As [`Window::device`].
    #[must_use]
    pub fn ram(address: u64, length: u64) -> Self {
        Self::map(address, length, Caching::WriteBack)
    }

    fn map(address: u64, length: u64, caching: Caching) -> Self {
        let end = address.checked_add(length).expect("a window that wraps");
        let image = paging::image();
        assert!(
            end <= image.start || address >= image.end,
            "a window on the image: {address:#x}+{length:#x}"
        );
        paging::map(address, length, caching);
        Self { address, length }
    }

    /// Physical address, which is also where it is mapped.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// # Panics
    /// If the part is not inside the window.
    #[must_use]
    pub fn part(&self, offset: u64, length: u64) -> Self {
        Self { address: self.place(offset, length), length }
    }

    #[inline]
    fn place(&self, offset: u64, length: u64) -> u64 {
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        assert!(fits, "access at {offset:#x}+{length} in a window of {:#x}", self.length);
        self.address + offset
    }

    /// Reads 1, 2, 4 or 8 bytes, aligned or not, by one instruction.
    ///
    /// # Panics
    /// If it is another number of bytes, or they are not inside the window.
    #[must_use]
    pub fn read_any(&self, offset: u64, bytes: u64) -> u64 {
        let address = self.place(offset, bytes);
        let value: u64;
        // SAFETY: the window is mapped and holds no Rust object.
        unsafe {
            match bytes {
                1 => {
                    asm!("movzx {v:e}, byte ptr [{a}]", a = in(reg) address, v = out(reg) value, options(nostack))
                }
                2 => {
                    asm!("movzx {v:e}, word ptr [{a}]", a = in(reg) address, v = out(reg) value, options(nostack))
                }
                4 => {
                    asm!("mov {v:e}, dword ptr [{a}]", a = in(reg) address, v = out(reg) value, options(nostack))
                }
                8 => {
                    asm!("mov {v}, qword ptr [{a}]", a = in(reg) address, v = out(reg) value, options(nostack))
                }
                _ => panic!("a read of {bytes} bytes"),
            }
        }
        value
    }

    /// Writes the lower 1, 2, 4 or 8 bytes of a value, aligned or not, by one instruction.
    ///
    /// # Panics
    /// As [`Window::read_any`].
    pub fn write_any(&self, offset: u64, bytes: u64, value: u64) {
        let address = self.place(offset, bytes);
        // SAFETY: as for reads.
        unsafe {
            match bytes {
                1 => {
                    asm!("mov byte ptr [{a}], {v}", a = in(reg) address, v = in(reg_byte) value as u8, options(nostack))
                }
                2 => {
                    asm!("mov word ptr [{a}], {v:x}", a = in(reg) address, v = in(reg) value as u16, options(nostack))
                }
                4 => {
                    asm!("mov dword ptr [{a}], {v:e}", a = in(reg) address, v = in(reg) value as u32, options(nostack))
                }
                8 => {
                    asm!("mov qword ptr [{a}], {v}", a = in(reg) address, v = in(reg) value, options(nostack))
                }
                _ => panic!("a write of {bytes} bytes"),
            }
        }
    }

    window_access!(read8, write8, u8);
    window_access!(read16, write16, u16);
    window_access!(read32, write32, u32);
    window_access!(read64, write64, u64);

    /// TSC cycles of one 32-bit read: see [`Window::cycles_of_write32`].
    #[must_use]
    pub fn cycles_of_read32(&self, offset: u64) -> u64 {
        let address = self.place(offset, 4);
        let cycles: u32;
        // SAFETY: as for reads.
        unsafe {
            asm!(
                "lfence", "rdtsc", "mov {begin:e}, eax",
                "mov eax, dword ptr [{address}]",
                "lfence", "rdtsc", "sub eax, {begin:e}",
                address = in(reg) address, begin = out(reg) _, out("eax") cycles, out("edx") _, options(nostack)
            );
        }
        cycles.into()
    }

    /// TSC cycles of one 32-bit write. Between the two readings of the time stamp counter are the access, the move that
    /// keeps the first reading (32 bits of it, so a time over 2^32 cycles is wrong), and the fence without which the second
    /// reading need not wait for an access that does not exit (Intel SDM volume 2, RDTSC).
    #[must_use]
    pub fn cycles_of_write32(&self, offset: u64, value: u32) -> u64 {
        let address = self.place(offset, 4);
        let cycles: u32;
        // SAFETY: as for reads.
        unsafe {
            asm!(
                "lfence", "rdtsc", "mov {begin:e}, eax",
                "mov dword ptr [{address}], {value:e}",
                "lfence", "rdtsc", "sub eax, {begin:e}",
                address = in(reg) address, value = in(reg) value, begin = out(reg) _,
                out("eax") cycles, out("edx") _, options(nostack)
            );
        }
        cycles.into()
    }

    /// A 32-bit write, and the time stamp counter directly before it.
    pub fn stamped_write32(&self, offset: u64, value: u32) -> u64 {
        let address = self.place(offset, 4);
        let (low, high): (u64, u64);
        // SAFETY: as for reads.
        unsafe {
            asm!(
                "lfence", "rdtsc", "mov dword ptr [{address}], {value:e}",
                address = in(reg) address, value = in(reg) value, out("rax") low, out("rdx") high, options(nostack)
            );
        }
        high << 32 | low
    }
}
