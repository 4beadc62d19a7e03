//! Offsets and bits of the configuration registers (PCIe 6.0 §7.5, `linux/pci_regs.h`).

/// Bytes of a conventional function's configuration space.
pub const CONVENTIONAL_SIZE: usize = 256;
/// Bytes of a PCI Express function's configuration space.
pub const EXPRESS_SIZE: usize = 4096;

/// Vendor id.
pub const VENDOR_ID: u16 = 0x00;
/// Device id.
pub const DEVICE_ID: u16 = 0x02;
/// Command register.
pub const COMMAND: u16 = 0x04;
/// Status register.
pub const STATUS: u16 = 0x06;
/// Revision id; the class code's three bytes follow it.
pub const REVISION_ID: u16 = 0x08;
/// Header type: layout in bits 6:0, multi-function in bit 7.
pub const HEADER_TYPE: u16 = 0x0e;
/// First of the six BARs of a type 0 header.
pub const BAR0: u16 = 0x10;
/// Expansion ROM BAR of a type 0 header.
pub const ROM_BAR: u16 = 0x30;
/// First capability.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, scratch for software.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin: 1 to 4 for INTA to INTD, 0 for none.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// First extended capability.
pub const EXTENDED_CAPABILITIES: u16 = 0x100;

/// Answers I/O accesses to its BARs.
pub const COMMAND_IO: u16 = 1 << 0;
/// Answers memory accesses to its BARs.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// May start memory transactions: DMA and messages.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// INTx is off.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// The function asserts INTx, or would if it were not disabled.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// The function has a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// More than one function answers at this device.
pub const HEADER_MULTI_FUNCTION: u8 = 0x80;

/// Capability ids (PCI Code and ID Assignment 1.15 §2).
pub mod capability_id {
    /// Null: nothing but the header.
    pub const NULL: u8 = 0x00;
    /// Power management.
    pub const POWER: u8 = 0x01;
    /// Accelerated graphics port.
    pub const AGP: u8 = 0x02;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Slot identification of a bridge.
    pub const SLOT: u8 = 0x04;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// CompactPCI hot swap.
    pub const HOT_SWAP: u8 = 0x06;
    /// PCI-X.
    pub const PCI_X: u8 = 0x07;
    /// HyperTransport.
    pub const HYPER_TRANSPORT: u8 = 0x08;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// USB debug port.
    pub const DEBUG_PORT: u8 = 0x0a;
    /// CompactPCI central resource control.
    pub const COMPACT_PCI: u8 = 0x0b;
    /// Standard hot-plug controller.
    pub const HOT_PLUG: u8 = 0x0c;
    /// Subsystem ids of a bridge.
    pub const SUBSYSTEM: u8 = 0x0d;
    /// AGP 8x.
    pub const AGP_8X: u8 = 0x0e;
    /// Secure device.
    pub const SECURE: u8 = 0x0f;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// SATA index and data registers.
    pub const SATA: u8 = 0x12;
    /// Advanced features: function-level reset for conventional functions.
    pub const ADVANCED_FEATURES: u8 = 0x13;
    /// Enhanced allocation: fixed addresses in the place of BARs.
    pub const ENHANCED_ALLOCATION: u8 = 0x14;
    /// Flattening portal bridge.
    pub const FLATTENING_PORTAL: u8 = 0x15;
}

/// Offsets within a PCI Express capability, and its types (PCIe 6.0 §7.5.3).
pub mod express {
    /// Type of an endpoint.
    pub const ENDPOINT: u16 = 0;
    /// Type of a legacy endpoint.
    pub const LEGACY_ENDPOINT: u16 = 1;
    /// Type of a root-complex integrated endpoint.
    pub const INTEGRATED_ENDPOINT: u16 = 9;

    /// Version and type.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device Capabilities.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device Control; Device Status follows it.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Link Capabilities.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link Control; Link Status follows it.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Device Capabilities 2.
    pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
    /// Device Control 2.
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// Link Capabilities 2.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link Control 2; Link Status 2 follows it.
    pub const LINK_CONTROL_2: u16 = 0x30;

    /// Device Capabilities: function-level reset.
    pub const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
    /// Device Control of an endpoint: starts a function-level reset.
    pub const INITIATE_FLR: u16 = 1 << 15;
}

/// Offsets within an Advanced Features capability, and its bits (ECN "Advanced Capabilities for Conventional PCI").
pub mod advanced_features {
    /// Control; status follows in the next byte.
    pub const CONTROL: u16 = 0x04;
    /// Control: starts a function-level reset.
    pub const INITIATE_FLR: u8 = 1 << 0;
    /// The capability's dword: it has function-level reset.
    pub const FUNCTION_LEVEL_RESET: u32 = 1 << 25;
    /// The capability's dword: status says whether transactions are pending.
    pub const TRANSACTIONS_PENDING: u32 = 1 << 24;
}

/// Offsets within a power management capability, and its bits (PCIe 6.0 §7.5.2).
pub mod power {
    /// Power Management Control/Status, PMCSR.
    pub const CONTROL: u16 = 0x04;
    /// PMCSR: the power state, D0 to D3hot.
    pub const STATE: u16 = 0x3;
    /// PMCSR: on the way from D3hot to D0 the function keeps its registers.
    pub const NO_SOFT_RESET: u16 = 1 << 3;
}

/// Extended capability ids (PCI Code and ID Assignment 1.15 §3).
pub mod extended_id {
    /// Advanced error reporting.
    pub const AER: u16 = 0x0001;
    /// Device serial number.
    pub const SERIAL_NUMBER: u16 = 0x0003;
    /// Power budgeting.
    pub const POWER_BUDGETING: u16 = 0x0004;
    /// Vendor-specific extended capability.
    pub const VENDOR: u16 = 0x000b;
    /// Configuration access correlation.
    pub const CONFIGURATION_CORRELATION: u16 = 0x000c;
    /// Access control services.
    pub const ACS: u16 = 0x000d;
    /// Alternative routing-id interpretation.
    pub const ARI: u16 = 0x000e;
    /// Address translation services.
    pub const ATS: u16 = 0x000f;
    /// Single-root I/O virtualization.
    pub const SRIOV: u16 = 0x0010;
    /// Multicast.
    pub const MULTICAST: u16 = 0x0012;
    /// Page request interface.
    pub const PAGE_REQUESTS: u16 = 0x0013;
    /// Resizable BARs.
    pub const RESIZABLE_BAR: u16 = 0x0015;
    /// TLP processing hints.
    pub const TPH_REQUESTER: u16 = 0x0017;
    /// Latency tolerance reporting.
    pub const LTR: u16 = 0x0018;
    /// Process address space ids.
    pub const PASID: u16 = 0x001b;
    /// L1 power management substates.
    pub const L1_SUBSTATES: u16 = 0x001e;
    /// Precision time measurement.
    pub const PRECISION_TIME: u16 = 0x001f;
    /// Resizable BARs of virtual functions.
    pub const VF_RESIZABLE_BAR: u16 = 0x0024;
    /// Data object exchange.
    pub const DATA_OBJECT_EXCHANGE: u16 = 0x002e;
}
