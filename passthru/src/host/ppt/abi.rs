//! What illumos' headers `sys/ppt_dev.h` and `sys/vmm_dev.h` say: numbers of requests and layouts of their arguments.
//! Both have been the same since 2018, but for what was added.
//!
//! Requests are plain constants of two letters and a number. Nothing in them says how long an argument is, so that its
//! layout is checked here.

use std::marker::PhantomData;
use std::mem::{offset_of, size_of};

/// A request, and what its argument is. Only this file makes them.
#[derive(Clone, Copy, Debug)]
pub struct Request<T> {
    number: i32,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    pub const fn number(&self) -> i32 {
        self.number
    }
}

/// Two letters and a number.
const fn request<T>(first: u8, second: u8, number: u8) -> Request<T> {
    let number = (first as i32) << 16 | (second as i32) << 8 | number as i32;
    Request { number, argument: PhantomData }
}

// On /dev/pptN.
pub const PPT_CFG_READ: Request<CfgIo> = request(b'P', b'T', 0x01);
pub const PPT_CFG_WRITE: Request<CfgIo> = request(b'P', b'T', 0x02);
pub const PPT_BAR_QUERY: Request<BarQuery> = request(b'P', b'T', 0x03);
pub const PPT_BAR_READ: Request<BarIo> = request(b'P', b'T', 0x04);
pub const PPT_BAR_WRITE: Request<BarIo> = request(b'P', b'T', 0x05);

// On /dev/vmm/<name>. The second letter says what is locked: l all vCPUs, p one of them, m none.
pub const VM_BIND_PPTDEV: Request<Pptdev> = request(b'v', b'l', 0x02);
pub const VM_UNBIND_PPTDEV: Request<Pptdev> = request(b'v', b'l', 0x03);
pub const VM_MAP_PPTDEV_MMIO: Request<PptdevMmio> = request(b'v', b'l', 0x04);
/// Not in 2018.
pub const VM_UNMAP_PPTDEV_MMIO: Request<PptdevMmio> = request(b'v', b'l', 0x09);
pub const VM_PPTDEV_MSI: Request<PptdevMsi> = request(b'v', b'p', 0x0b);
pub const VM_PPTDEV_MSIX: Request<PptdevMsix> = request(b'v', b'p', 0x0c);
pub const VM_GET_PPTDEV_LIMITS: Request<PptdevLimits> = request(b'v', b'm', 0x14);
/// Not in 2018.
pub const VM_PPTDEV_DISABLE_MSIX: Request<Pptdev> = request(b'v', b'm', 0x1f);

/// On every minor of vmm. Not in 2018.
pub const VMM_INTERFACE_VERSION: Request<()> = request(b'V', b'M', 0x04);

/// Mappings of one function at once (`MAX_MMIOSEGS`).
pub const MAX_MMIO_SEGMENTS: u32 = 7;
/// Page size of x86, and granularity of mappings.
pub const PAGE: u64 = 4096;
/// `pbq_type`: the address space, as bits of the phys.hi word of an `assigned-addresses` property.
pub const PCI_ADDR_MASK: u32 = 0x0300_0000;
pub const PCI_ADDR_IO: u32 = 0x0100_0000;
pub const PCI_ADDR_MEM32: u32 = 0x0200_0000;
pub const PCI_ADDR_MEM64: u32 = 0x0300_0000;
/// `vector_control`: the entry's mask bit (PCIe 6.0 §7.7.2.7).
pub const VECTOR_MASKED: u32 = 1;

/// Declares the argument of requests, and checks size and offsets when this is compiled. What the compiler would leave between
/// fields is a field as well, so that the kernel is not shown what happened to be in memory there.
macro_rules! argument {
    ($(#[$meta:meta])* $name:ident, $size:literal { $($field:ident: $type:ty = $offset:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name { $(pub $field: $type),+ }
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(offset_of!($name, $field) == $offset);)+
            assert!(0 $(+ size_of::<$type>())+ == $size);
        };
    };
}

argument!(
    /// `struct ppt_cfg_io`.
    CfgIo, 16 { pci_off: u64 = 0, pci_width: u32 = 8, pci_data: u32 = 12 }
);
argument!(
    /// `struct ppt_bar_query`.
    BarQuery, 24 { pbq_baridx: u32 = 0, pbq_type: u32 = 4, pbq_base: u64 = 8, pbq_size: u64 = 16 }
);
argument!(
    /// `struct ppt_bar_io`.
    BarIo, 16 { pbi_bar: u32 = 0, pbi_off: u32 = 4, pbi_width: u32 = 8, pbi_data: u32 = 12 }
);
argument!(
    /// `struct vm_pptdev`.
    Pptdev, 4 { pptfd: i32 = 0 }
);
argument!(
    /// `struct vm_pptdev_mmio`.
    PptdevMmio, 32 { pptfd: i32 = 0, padding: u32 = 4, gpa: u64 = 8, hpa: u64 = 16, len: u64 = 24 }
);
argument!(
    /// `struct vm_pptdev_msi`. The vCPU is the one that is locked meanwhile, and says nothing else.
    PptdevMsi, 32 { vcpu: i32 = 0, pptfd: i32 = 4, numvec: i32 = 8, padding: u32 = 12, msg: u64 = 16, addr: u64 = 24 }
);
argument!(
    /// `struct vm_pptdev_msix`. The vCPU is the one that is locked meanwhile, and says nothing else.
    PptdevMsix, 40 {
        vcpu: i32 = 0, pptfd: i32 = 4, idx: i32 = 8, padding: u32 = 12, msg: u64 = 16, vector_control: u32 = 24,
        padding_2: u32 = 28, addr: u64 = 32,
    }
);
argument!(
    /// `struct vm_pptdev_limits`; -1 where the function has no such vectors.
    PptdevLimits, 12 { pptfd: i32 = 0, msi_limit: i32 = 4, msix_limit: i32 = 8 }
);

// The headers' values, written out: a wrong letter above does not pass.
const _: () = {
    assert!(
        PPT_CFG_READ.number == 0x505401
            && PPT_CFG_WRITE.number == 0x505402
            && PPT_BAR_QUERY.number == 0x505403
    );
    assert!(PPT_BAR_READ.number == 0x505404 && PPT_BAR_WRITE.number == 0x505405);
    assert!(VM_BIND_PPTDEV.number == 0x766c02 && VM_UNBIND_PPTDEV.number == 0x766c03);
    assert!(VM_MAP_PPTDEV_MMIO.number == 0x766c04 && VM_UNMAP_PPTDEV_MMIO.number == 0x766c09);
    assert!(VM_PPTDEV_MSI.number == 0x76700b && VM_PPTDEV_MSIX.number == 0x76700c);
    assert!(VM_GET_PPTDEV_LIMITS.number == 0x766d14 && VM_PPTDEV_DISABLE_MSIX.number == 0x766d1f);
    assert!(VMM_INTERFACE_VERSION.number == 0x564d04);
};
