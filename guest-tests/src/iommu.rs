use std::fmt;

/// The IOMMU that the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// VT-d with 48-bit I/O addresses.
    Intel48,
    /// VT-d with 39-bit I/O addresses: BARs that the host placed high cannot be mapped for peer-to-peer DMA.
    Intel39,
    /// AMD-Vi.
    Amd,
}

impl Iommu {
    pub const ALL: &[Self] = &[Self::Intel48, Self::Intel39, Self::Amd];

    pub(crate) fn qemu_device(self) -> &'static str {
        match self {
            Self::Intel48 => "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on,aw-bits=48",
            Self::Intel39 => "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on,aw-bits=39",
            // Has a PCI function of its own; the address keeps it away from those of the scenarios.
            Self::Amd => "amd-iommu,intremap=on",
        }
    }

    pub(crate) fn kernel_words(self) -> &'static str {
        match self {
            Self::Intel48 | Self::Intel39 => "intel_iommu=on",
            Self::Amd => "",
        }
    }
}

impl fmt::Display for Iommu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intel48 => "intel48",
            Self::Intel39 => "intel39",
            Self::Amd => "amd",
        })
    }
}
