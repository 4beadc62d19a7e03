//! The registers of the header and of each capability, by name.

use passthru::pci::capability::{Capability, ExtendedCapability, read_u16};
use passthru::pci::registers::{capability_id, extended_id};

use super::meaning;

/// A register of a header or capability.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Offset of its first byte, from the start of the header or capability.
    pub at: u16,
    /// 1 to 4 bytes.
    pub len: u8,
    /// As the specification has it.
    pub name: &'static str,
    /// What a value means.
    pub meaning: Option<fn(u32) -> String>,
}

const fn plain(at: u16, len: u8, name: &'static str) -> Field {
    Field { at, len, name, meaning: None }
}

const fn told(at: u16, len: u8, name: &'static str, meaning: fn(u32) -> String) -> Field {
    Field { at, len, name, meaning: Some(meaning) }
}

/// The header of an endpoint (PCIe 6.0 §7.5.1.1 and §7.5.1.2).
pub const HEADER: &[Field] = &[
    plain(0x00, 2, "Vendor ID"),
    plain(0x02, 2, "Device ID"),
    told(0x04, 2, "Command", meaning::command),
    told(0x06, 2, "Status", meaning::status),
    plain(0x08, 1, "Revision ID"),
    plain(0x09, 3, "Class Code"),
    plain(0x0c, 1, "Cache Line Size"),
    plain(0x0d, 1, "Latency Timer"),
    told(0x0e, 1, "Header Type", meaning::header_type),
    plain(0x0f, 1, "BIST"),
    plain(0x10, 4, "BAR 0"),
    plain(0x14, 4, "BAR 1"),
    plain(0x18, 4, "BAR 2"),
    plain(0x1c, 4, "BAR 3"),
    plain(0x20, 4, "BAR 4"),
    plain(0x24, 4, "BAR 5"),
    plain(0x28, 4, "CardBus CIS Pointer"),
    plain(0x2c, 2, "Subsystem Vendor ID"),
    plain(0x2e, 2, "Subsystem ID"),
    plain(0x30, 4, "Expansion ROM"),
    plain(0x34, 1, "Capabilities Pointer"),
    plain(0x3c, 1, "Interrupt Line"),
    told(0x3d, 1, "Interrupt Pin", meaning::pin),
    plain(0x3e, 1, "Min_Gnt"),
    plain(0x3f, 1, "Max_Lat"),
];

const POWER: &[Field] = &[
    told(0x2, 2, "PM Capabilities", meaning::power_capabilities),
    told(0x4, 2, "PM Control/Status", meaning::power_state),
    plain(0x6, 1, "PM Bridge Extensions"),
    plain(0x7, 1, "PM Data"),
];

const VPD: &[Field] = &[plain(0x2, 2, "VPD Address"), plain(0x4, 4, "VPD Data")];

const MSI_CONTROL: Field = told(0x2, 2, "Message Control", meaning::msi_control);
const MSI_ADDRESS: Field = plain(0x4, 4, "Message Address");
const MSI_UPPER: Field = plain(0x8, 4, "Message Upper Address");

/// By 64-bit address and per-vector masking.
const MSI: [[&[Field]; 2]; 2] = [
    [
        &[MSI_CONTROL, MSI_ADDRESS, plain(0x8, 2, "Message Data")],
        &[
            MSI_CONTROL,
            MSI_ADDRESS,
            plain(0x8, 2, "Message Data"),
            plain(0xc, 4, "Mask Bits"),
            plain(0x10, 4, "Pending Bits"),
        ],
    ],
    [
        &[MSI_CONTROL, MSI_ADDRESS, MSI_UPPER, plain(0xc, 2, "Message Data")],
        &[
            MSI_CONTROL,
            MSI_ADDRESS,
            MSI_UPPER,
            plain(0xc, 2, "Message Data"),
            plain(0x10, 4, "Mask Bits"),
            plain(0x14, 4, "Pending Bits"),
        ],
    ],
];

const MSIX: &[Field] = &[
    told(0x2, 2, "Message Control", meaning::msix_control),
    told(0x4, 4, "Table", meaning::bar_offset),
    told(0x8, 4, "Pending Bit Array", meaning::bar_offset),
];

const EXPRESS: &[Field] = &[
    told(0x02, 2, "PCIe Capabilities", meaning::express_capabilities),
    told(0x04, 4, "Device Capabilities", meaning::device_capabilities),
    told(0x08, 2, "Device Control", meaning::device_control),
    told(0x0a, 2, "Device Status", meaning::device_status),
    told(0x0c, 4, "Link Capabilities", meaning::link_capabilities),
    told(0x10, 2, "Link Control", meaning::link_control),
    told(0x12, 2, "Link Status", meaning::link_status),
];

/// Further ones of version 2.
const EXPRESS_2: &[Field] = &[
    told(0x24, 4, "Device Capabilities 2", meaning::device_capabilities_2),
    plain(0x28, 2, "Device Control 2"),
    plain(0x2a, 2, "Device Status 2"),
    plain(0x2c, 4, "Link Capabilities 2"),
    plain(0x30, 2, "Link Control 2"),
    plain(0x32, 2, "Link Status 2"),
];

const ADVANCED_FEATURES: &[Field] = &[
    plain(0x2, 1, "AF Length"),
    told(0x3, 1, "AF Capabilities", meaning::advanced_features),
    plain(0x4, 1, "AF Control"),
    plain(0x5, 1, "AF Status"),
];

const PCI_X: &[Field] = &[plain(0x2, 2, "PCI-X Command"), plain(0x4, 4, "PCI-X Status")];
const SATA: &[Field] = &[plain(0x2, 2, "SATA Revision"), plain(0x4, 4, "SATA Index/Data Location")];
const SUBSYSTEM: &[Field] = &[plain(0x4, 2, "Subsystem Vendor ID"), plain(0x6, 2, "Subsystem ID")];

const AER: &[Field] = &[
    told(0x04, 4, "Uncorrectable Error Status", meaning::uncorrectable),
    told(0x08, 4, "Uncorrectable Error Mask", meaning::uncorrectable),
    told(0x0c, 4, "Uncorrectable Error Severity", meaning::uncorrectable),
    plain(0x10, 4, "Correctable Error Status"),
    plain(0x14, 4, "Correctable Error Mask"),
    plain(0x18, 4, "AER Capabilities/Control"),
    plain(0x1c, 4, "Header Log 1"),
    plain(0x20, 4, "Header Log 2"),
    plain(0x24, 4, "Header Log 3"),
    plain(0x28, 4, "Header Log 4"),
    plain(0x38, 4, "TLP Prefix Log 1"),
    plain(0x3c, 4, "TLP Prefix Log 2"),
    plain(0x40, 4, "TLP Prefix Log 3"),
    plain(0x44, 4, "TLP Prefix Log 4"),
];

const SERIAL_NUMBER: &[Field] = &[plain(0x4, 4, "Serial Number, low"), plain(0x8, 4, "Serial Number, high")];
const VENDOR_EXTENDED: &[Field] = &[plain(0x4, 4, "Vendor-Specific Header")];
const SR_IOV: &[Field] = &[
    plain(0x04, 4, "SR-IOV Capabilities"),
    plain(0x08, 2, "SR-IOV Control"),
    told(0x0c, 2, "InitialVFs", meaning::virtual_functions),
    told(0x0e, 2, "TotalVFs", meaning::virtual_functions),
    told(0x10, 2, "NumVFs", meaning::virtual_functions),
    plain(0x14, 2, "First VF Offset"),
    plain(0x16, 2, "VF Stride"),
    plain(0x1a, 2, "VF Device ID"),
];

/// Two words behind the header, as many extended capabilities have them.
const CAPABILITY_AND_CONTROL: &[Field] = &[plain(0x4, 2, "Capability"), plain(0x6, 2, "Control")];
const LATENCY: &[Field] = &[plain(0x4, 2, "Max Snoop Latency"), plain(0x6, 2, "Max No-Snoop Latency")];

/// The registers of a capability in the first 256 bytes, but for its id and pointer.
pub fn of_capability(raw: &[u8], capability: &Capability) -> Vec<Field> {
    let control = read_u16(raw, capability.offset.saturating_add(2));
    match capability.id {
        capability_id::POWER => POWER.to_vec(),
        capability_id::VPD => VPD.to_vec(),
        capability_id::MSI => {
            let [narrow, wide] = MSI;
            let [plain, masking] = if control & 0x80 == 0 { narrow } else { wide };
            if control & 0x100 == 0 { plain.to_vec() } else { masking.to_vec() }
        }
        capability_id::MSIX => MSIX.to_vec(),
        capability_id::EXPRESS if control & 0xf >= 2 => [EXPRESS, EXPRESS_2].concat(),
        capability_id::EXPRESS => EXPRESS.to_vec(),
        capability_id::ADVANCED_FEATURES => ADVANCED_FEATURES.to_vec(),
        capability_id::PCI_X => PCI_X.to_vec(),
        capability_id::SATA => SATA.to_vec(),
        capability_id::SUBSYSTEM => SUBSYSTEM.to_vec(),
        capability_id::VENDOR => vec![plain(0x2, 1, "Length")],
        _ => Vec::new(),
    }
}

/// The registers of an extended capability, but for its header.
pub fn of_extended(capability: &ExtendedCapability) -> &'static [Field] {
    match capability.id {
        extended_id::AER => AER,
        extended_id::SERIAL_NUMBER => SERIAL_NUMBER,
        extended_id::VENDOR => VENDOR_EXTENDED,
        0x000d | 0x000e | 0x000f | 0x001b => CAPABILITY_AND_CONTROL,
        0x0010 => SR_IOV,
        extended_id::LTR => LATENCY,
        _ => &[],
    }
}

/// A capability's name.
pub fn capability_name(id: u8) -> String {
    let name = match id {
        0x00 => "Null",
        0x01 => "Power Management",
        0x02 => "AGP",
        0x03 => "Vital Product Data",
        0x04 => "Slot Identification",
        0x05 => "MSI",
        0x06 => "CompactPCI Hot Swap",
        0x07 => "PCI-X",
        0x08 => "HyperTransport",
        0x09 => "Vendor-Specific",
        0x0a => "Debug Port",
        0x0b => "CompactPCI Resources",
        0x0c => "Hot-Plug",
        0x0d => "Subsystem IDs",
        0x0e => "AGP 8x",
        0x0f => "Secure Device",
        0x10 => "PCI Express",
        0x11 => "MSI-X",
        0x12 => "SATA",
        0x13 => "Advanced Features",
        0x14 => "Enhanced Allocation",
        0x15 => "Flattening Portal Bridge",
        id => return format!("id {id:#04x}"),
    };
    name.to_owned()
}

/// An extended capability's name.
pub fn extended_name(id: u16) -> String {
    let name = match id {
        0x0000 => "Null",
        0x0001 => "Advanced Error Reporting",
        0x0002 | 0x0009 => "Virtual Channel",
        0x0003 => "Device Serial Number",
        0x0004 => "Power Budgeting",
        0x0005 => "Root Complex Link",
        0x0006 => "Root Complex Link Control",
        0x0007 => "Event Collector Association",
        0x0008 => "Multi-Function Virtual Channel",
        0x000a => "Root Complex Registers",
        0x000b => "Vendor-Specific (extended)",
        0x000d => "Access Control Services",
        0x000e => "ARI",
        0x000f => "Address Translation Services",
        0x0010 => "SR-IOV",
        0x0011 => "MR-IOV",
        0x0012 => "Multicast",
        0x0013 => "Page Request Interface",
        0x0015 => "Resizable BAR",
        0x0016 => "Dynamic Power Allocation",
        0x0017 => "TPH Requester",
        0x0018 => "Latency Tolerance Reporting",
        0x0019 => "Secondary PCI Express",
        0x001b => "PASID",
        0x001c => "LN Requester",
        0x001d => "Downstream Port Containment",
        0x001e => "L1 PM Substates",
        0x001f => "Precision Time Measurement",
        0x0022 => "Readiness Time Reporting",
        0x0023 => "Designated Vendor-Specific",
        0x0024 => "VF Resizable BAR",
        0x0025 => "Data Link Feature",
        0x0026 => "Physical Layer 16 GT/s",
        0x0027 => "Lane Margining",
        0x002a => "Physical Layer 32 GT/s",
        0x002e => "Data Object Exchange",
        id => return format!("id {id:#06x}"),
    };
    name.to_owned()
}

/// Why a guest does not see a capability.
pub fn why_hidden(id: u8) -> &'static str {
    match id {
        capability_id::ADVANCED_FEATURES => "resets are slotpass' to make",
        capability_id::EXPRESS => "its port type cannot stand in the guest's slot",
        capability_id::MSI | capability_id::MSIX => {
            "the host has no vectors for it, or its registers make no sense"
        }
        0x14 => "it holds the host's addresses",
        capability_id::DEBUG_PORT => "it is the host's way to debug",
        _ => "not known to be safe in a guest",
    }
}

/// The same of an extended capability.
pub fn why_extended_hidden(id: u16) -> &'static str {
    match id {
        0x000d | 0x000e => "it speaks of the host's topology",
        0x000f | 0x0013 | 0x001b => "address translation is the host IOMMU's",
        0x0010 | 0x0011 | 0x0024 => "a guest cannot make further functions",
        0x0015 => "the sizes of BARs are fixed in a guest",
        0x0017 => "its steering tags are the host processors'",
        extended_id::LTR | 0x0019 | 0x001d | 0x001e | 0x0025 | 0x0026 | 0x0027 | 0x002a => {
            "links are the host's"
        }
        0x001f => "its clock is that of the host's hierarchy",
        0x0002 | 0x0004 | 0x0008 | 0x0009 | 0x0012 | 0x0016 => "it is the host's to configure",
        _ => "not known to be safe in a guest",
    }
}
