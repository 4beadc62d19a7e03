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

/// The function has a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// More than one function answers at this device.
pub const HEADER_MULTI_FUNCTION: u8 = 0x80;

/// Capability ids (PCI Code and ID Assignment 1.15 §2).
pub mod capability_id {
    /// Power management.
    pub const POWER: u8 = 0x01;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI-X.
    pub const PCI_X: u8 = 0x07;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// USB debug port.
    pub const DEBUG_PORT: u8 = 0x0a;
    /// Subsystem ids of a bridge.
    pub const SUBSYSTEM: u8 = 0x0d;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// SATA index and data registers.
    pub const SATA: u8 = 0x12;
    /// Advanced features: function-level reset for conventional functions.
    pub const ADVANCED_FEATURES: u8 = 0x13;
}

/// Extended capability ids (PCI Code and ID Assignment 1.15 §3).
pub mod extended_id {
    /// Advanced error reporting.
    pub const AER: u16 = 0x0001;
    /// Device serial number.
    pub const SERIAL_NUMBER: u16 = 0x0003;
    /// Vendor-specific extended capability.
    pub const VENDOR: u16 = 0x000b;
    /// Latency tolerance reporting.
    pub const LTR: u16 = 0x0018;
}
