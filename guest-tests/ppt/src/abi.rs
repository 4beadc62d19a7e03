//! Numbers and argument layouts of the interface, as illumos' `ppt_dev.h` and `vmm_dev.h` give them for LP64. The test
//! `c_program` checks them against `abi.json`.

/// The number of an ioctl: no direction, no size.
const fn number(first: u8, second: u8, n: u8) -> i32 {
    (first as i32) << 16 | (second as i32) << 8 | n as i32
}

/// Of `/dev/pptN`.
pub mod ppt {
    use super::number;

    pub const CFG_READ: i32 = number(b'P', b'T', 0x01);
    pub const CFG_WRITE: i32 = number(b'P', b'T', 0x02);
    pub const BAR_QUERY: i32 = number(b'P', b'T', 0x03);
    pub const BAR_READ: i32 = number(b'P', b'T', 0x04);
    pub const BAR_WRITE: i32 = number(b'P', b'T', 0x05);

    /// What `pbq_type` says of a BAR.
    pub const TYPE_IO: u32 = 0x0100_0000;
    pub const TYPE_MEMORY_32: u32 = 0x0200_0000;
    pub const TYPE_MEMORY_64: u32 = 0x0300_0000;
}

/// Of `/dev/vmmctl`.
pub mod vmmctl {
    use super::number;

    pub const CREATE_VM: i32 = number(b'V', b'M', 0x01);
    pub const DESTROY_VM: i32 = number(b'V', b'M', 0x02);
    pub const VM_SUPPORTED: i32 = number(b'V', b'M', 0x03);
    pub const INTERFACE_VERSION: i32 = number(b'V', b'M', 0x04);
    pub const CHECK_IOMMU: i32 = number(b'V', b'M', 0x05);

    /// What `INTERFACE_VERSION` gives.
    pub const CURRENT_INTERFACE: i32 = 18;
    /// Bytes of a VM's name, with the zero at its end.
    pub const NAME: usize = 128;
}

/// Of `/dev/vmm/<name>`.
pub mod vm {
    use super::number;

    pub const REINIT: i32 = number(b'v', b'l', 0x01);
    pub const BIND_PPTDEV: i32 = number(b'v', b'l', 0x02);
    pub const UNBIND_PPTDEV: i32 = number(b'v', b'l', 0x03);
    pub const MAP_PPTDEV_MMIO: i32 = number(b'v', b'l', 0x04);
    pub const ALLOC_MEMSEG: i32 = number(b'v', b'l', 0x05);
    pub const MMAP_MEMSEG: i32 = number(b'v', b'l', 0x06);
    pub const MUNMAP_MEMSEG: i32 = number(b'v', b'l', 0x08);
    pub const UNMAP_PPTDEV_MMIO: i32 = number(b'v', b'l', 0x09);
    pub const PPTDEV_MSI: i32 = number(b'v', b'p', 0x0b);
    pub const PPTDEV_MSIX: i32 = number(b'v', b'p', 0x0c);
    pub const GET_PPTDEV_LIMITS: i32 = number(b'v', b'm', 0x14);
    pub const PPTDEV_DISABLE_MSIX: i32 = number(b'v', b'm', 0x1f);

    /// Of `VM_MMAP_MEMSEG`.
    pub const MEMMAP_WIRED: i32 = 1;
    pub const MEMMAP_IOMMU: i32 = 2;
}

/// Most vCPUs of a VM.
pub const MAX_CPUS: i32 = 32;
/// Most MSI vectors that can be set up.
pub const MAX_MSI: i32 = 32;
/// Most parts of a function's BARs that are mapped at once.
pub const MAX_SEGMENTS: usize = 7;
/// x86's, in bytes.
pub const PAGE: u64 = 4096;

/// The bytes of an argument, field by field.
pub struct Layout<const SIZE: usize>(pub [u8; SIZE]);

impl<const SIZE: usize> Layout<SIZE> {
    fn bytes<const LEN: usize>(&self, at: usize) -> [u8; LEN] {
        let mut out = [0; LEN];
        for (to, from) in out.iter_mut().zip(self.0.iter().skip(at)) {
            *to = *from;
        }
        out
    }

    /// `int` at this offset.
    pub fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.bytes(at))
    }

    /// `uint32_t` at this offset.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    /// `uint64_t`, or `size_t`, at this offset.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// Sets a field.
    pub fn put(&mut self, at: usize, field: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    }
}

/// `struct ppt_cfg_io`: `pci_off`, `pci_width`, `pci_data`.
pub struct ConfigIo(pub Layout<16>);

impl ConfigIo {
    pub fn offset(&self) -> u64 {
        self.0.u64(0)
    }
    pub fn width(&self) -> u32 {
        self.0.u32(8)
    }
    pub fn data(&self) -> u32 {
        self.0.u32(12)
    }
    pub fn set_data(&mut self, data: u32) {
        self.0.put(12, &data.to_le_bytes());
    }
}

/// `struct ppt_bar_query`: `pbq_baridx`, `pbq_type`, `pbq_base`, `pbq_size`.
pub struct BarQuery(pub Layout<24>);

impl BarQuery {
    pub fn bar(&self) -> u32 {
        self.0.u32(0)
    }
    pub fn set_answer(&mut self, kind: u32, base: u64, size: u64) {
        self.0.put(4, &kind.to_le_bytes());
        self.0.put(8, &base.to_le_bytes());
        self.0.put(16, &size.to_le_bytes());
    }
}

/// `struct ppt_bar_io`: `pbi_bar`, `pbi_off`, `pbi_width`, `pbi_data`.
pub struct BarIo(pub Layout<16>);

impl BarIo {
    pub fn bar(&self) -> u32 {
        self.0.u32(0)
    }
    pub fn offset(&self) -> u32 {
        self.0.u32(4)
    }
    pub fn width(&self) -> u32 {
        self.0.u32(8)
    }
    pub fn data(&self) -> u32 {
        self.0.u32(12)
    }
    pub fn set_data(&mut self, data: u32) {
        self.0.put(12, &data.to_le_bytes());
    }
}

/// `struct vm_pptdev_mmio`: `pptfd`, `gpa`, `hpa`, `len`.
pub struct Mmio(pub Layout<32>);

impl Mmio {
    pub fn pptfd(&self) -> i32 {
        self.0.int(0)
    }
    pub fn gpa(&self) -> u64 {
        self.0.u64(8)
    }
    pub fn hpa(&self) -> u64 {
        self.0.u64(16)
    }
    pub fn len(&self) -> u64 {
        self.0.u64(24)
    }
}

/// `struct vm_pptdev_msi`: `vcpu`, `pptfd`, `numvec`, `msg`, `addr`.
pub struct Msi(pub Layout<32>);

impl Msi {
    pub fn pptfd(&self) -> i32 {
        self.0.int(4)
    }
    pub fn vectors(&self) -> i32 {
        self.0.int(8)
    }
    pub fn data(&self) -> u64 {
        self.0.u64(16)
    }
    pub fn address(&self) -> u64 {
        self.0.u64(24)
    }
}

/// `struct vm_pptdev_msix`: `vcpu`, `pptfd`, `idx`, `msg`, `vector_control`, `addr`.
pub struct Msix(pub Layout<40>);

impl Msix {
    pub fn pptfd(&self) -> i32 {
        self.0.int(4)
    }
    pub fn index(&self) -> i32 {
        self.0.int(8)
    }
    pub fn data(&self) -> u64 {
        self.0.u64(16)
    }
    pub fn vector_control(&self) -> u32 {
        self.0.u32(24)
    }
    pub fn address(&self) -> u64 {
        self.0.u64(32)
    }
}

/// `struct vm_pptdev_limits`: `pptfd`, `msi_limit`, `msix_limit`.
pub struct Limits(pub Layout<12>);

impl Limits {
    pub fn pptfd(&self) -> i32 {
        self.0.int(0)
    }
    pub fn set_limits(&mut self, msi: i32, msix: i32) {
        self.0.put(4, &msi.to_le_bytes());
        self.0.put(8, &msix.to_le_bytes());
    }
}

/// `struct vm_memseg`: `segid`, `len`, `name`.
pub struct MemorySegment(pub Layout<144>);

impl MemorySegment {
    pub fn id(&self) -> i32 {
        self.0.int(0)
    }
    pub fn len(&self) -> u64 {
        self.0.u64(8)
    }
}

/// `struct vm_memmap`: `gpa`, `segid`, `segoff`, `len`, `prot`, `flags`.
pub struct MemoryMap(pub Layout<40>);

impl MemoryMap {
    pub fn gpa(&self) -> u64 {
        self.0.u64(0)
    }
    pub fn segment(&self) -> i32 {
        self.0.int(8)
    }
    pub fn offset(&self) -> u64 {
        self.0.u64(16)
    }
    pub fn len(&self) -> u64 {
        self.0.u64(24)
    }
    pub fn protection(&self) -> i32 {
        self.0.int(32)
    }
    pub fn flags(&self) -> i32 {
        self.0.int(36)
    }
}

/// `struct vm_munmap`: `gpa`, `len`.
pub struct MemoryUnmap(pub Layout<16>);

impl MemoryUnmap {
    pub fn gpa(&self) -> u64 {
        self.0.u64(0)
    }
    pub fn len(&self) -> u64 {
        self.0.u64(8)
    }
}

/// `struct vm_create_req`: `name`, `flags`.
pub struct Create(pub Layout<136>);

impl Create {
    pub fn name(&self) -> [u8; vmmctl::NAME] {
        self.0.bytes(0)
    }
    pub fn flags(&self) -> u64 {
        self.0.u64(128)
    }
}
