//! PCI Express (PCIe 6.0 §7.5.3): the type and the Link registers are those of the guest's slot, the rest is the
//! function's as far as a guest can have it.

use super::rule::{NOTHING, Rule, apply};
use super::{Given, Place};
use crate::function::registers::{Limit, Register, Registers};
use crate::pci::capability::{Capability, read_u16, read_u32};
use crate::pci::registers::{CONVENTIONAL_SIZE, express};

/// Device registers, of both versions.
const DEVICE: [Rule; 3] = [
    // Interrupt message number; type and version are put in. No slot: the function is none's port.
    Rule { at: 0x00, keep: 0x3e00_0000, ..NOTHING },
    Rule {
        at: express::DEVICE_CAPABILITIES,
        // Payload size, extended tags, latencies that the function accepts, role-based error reporting. No phantom
        // functions: the IOMMU knows nothing of their requester ids. No slot power limit, which is what the host's slot
        // told. Function-level reset is added where it is offered.
        keep: 0x0000_8fe7,
        ..NOTHING
    },
    // All kept for the guest and not forwarded: payload and request sizes must fit the host's links, ordering and
    // snooping its IOMMU, and error messages would go to the host. No phantom functions, no auxiliary power. Bit 15
    // starts a reset and reads zero. Of the status the errors, and that transactions are pending.
    Rule {
        at: express::DEVICE_CONTROL,
        keep: 0x79ff,
        writable: 0x79ff,
        live: 0x002f << 16,
        forward: 0x000f << 16,
        clear: 0x000f << 16,
        ..NOTHING
    },
];

/// Device registers of the second version. Completion timeouts are kept for the guest. The rest is hidden: ARI
/// forwarding, atomic routing and end-to-end prefixes are for ports, LTR and OBFF tune the host's platform, ID-based
/// ordering, 10-bit tags, TPH and atomic requests need all that is on the way to agree, which the guest cannot know,
/// and emergency power reduction is the host's slot's.
const DEVICE_2: [Rule; 2] = [
    Rule { at: express::DEVICE_CAPABILITIES_2, keep: 0x1f, ..NOTHING },
    Rule { at: express::DEVICE_CONTROL_2, keep: 0x1f, writable: 0x1f, ..NOTHING },
];

/// Fields of Device Control.
const PAYLOAD: u32 = 0x7 << 5;
const REQUEST: u32 = 0x7 << 12;
const REQUEST_MOST: u32 = 5 << 12;

/// The capability as the guest's slot has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    kind: u16,
    version: u16,
    link: Option<Link>,
}

/// What the Link registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    /// Largest speed and width of the function.
    speed: u8,
    width: u8,
    /// Those that it has at its port.
    current_speed: u8,
    current_width: u8,
    /// Supported speeds as a vector, bit 1 for the first.
    speeds: u32,
    /// The function uses the slot's clock.
    slot_clock: bool,
}

/// What becomes of a capability in a slot, nothing when it cannot be there. `room` is how many bytes there are before
/// the next capability.
pub fn form(raw: &[u8], capability: &Capability, room: u16, place: Place) -> Option<Form> {
    let word = read_u16(raw, capability.offset + express::CAPABILITIES);
    let (kind, link) = match (word >> 4 & 0xf, place) {
        // Link registers would speak of a link that is not there.
        (express::ENDPOINT | express::INTEGRATED_ENDPOINT, Place::RootBus) => {
            (express::INTEGRATED_ENDPOINT, None)
        }
        (kind @ (express::ENDPOINT | express::LEGACY_ENDPOINT), Place::BehindPort { speed, width }) => {
            (kind, Some(Link::of(raw, capability.offset, speed, width)))
        }
        (express::INTEGRATED_ENDPOINT, Place::BehindPort { speed, width }) => {
            (express::ENDPOINT, Some(Link::made(speed, width)))
        }
        // A legacy endpoint cannot stand on a root bus as anything else, and a port's registers are no endpoint's.
        _ => return None,
    };
    let (first, second) = if link.is_some() { (0x14, 0x34) } else { (0x0c, 0x2c) };
    let version = match word & 0xf {
        2.. if room >= second => 2,
        _ if room >= first => 1,
        _ => return None,
    };
    Some(Form { kind, version, link })
}

impl Link {
    fn made(speed: u8, width: u8) -> Link {
        let (speed, width) = (speed.clamp(1, 6), width.clamp(1, 32));
        let speeds = ((1 << speed) - 1) << 1;
        Link { speed, width, current_speed: speed, current_width: width, speeds, slot_clock: true }
    }

    /// The function's link, trained to what the guest's port can do.
    fn of(raw: &[u8], offset: u16, port_speed: u8, port_width: u8) -> Link {
        let made = Link::made(port_speed, port_width);
        let capabilities = read_u32(raw, offset + express::LINK_CAPABILITIES);
        let (speed, width) = ((capabilities & 0xf) as u8, (capabilities >> 4 & 0x3f) as u8);
        // A virtual function's are zero where the physical one has them.
        if !matches!(speed, 1..=6) || !matches!(width, 1..=32) {
            return made;
        }
        let own = Link::made(speed, width);
        Link {
            current_speed: speed.min(made.speed),
            current_width: width.min(made.width),
            slot_clock: read_u32(raw, offset + express::LINK_CONTROL) >> 28 & 1 != 0,
            ..own
        }
    }

    /// All read-only, and no word of power management: ASPM and clock power management would change the host's link.
    fn build(&self, registers: &mut Registers, base: u16, version: u16) {
        let mut put =
            |at, shadow| registers.update(base + at, |r| *r = Register { shadow, ..Register::default() });
        // Bit 22 says that the ASPM field counts, which reads 0: none (§7.5.3.6).
        put(express::LINK_CAPABILITIES, 1 << 22 | u32::from(self.width) << 4 | u32::from(self.speed));
        let status = u32::from(self.slot_clock) << 12
            | u32::from(self.current_width) << 4
            | u32::from(self.current_speed);
        put(express::LINK_CONTROL, status << 16);
        if version >= 2 {
            put(express::LINK_CAPABILITIES_2, self.speeds);
            put(express::LINK_CONTROL_2, u32::from(self.speed));
        }
    }
}

/// The capability, and where its Device Control is if the guest can reset the function there.
pub fn build(registers: &mut Registers, given: &Given, capability: &Capability, form: &Form) -> Option<u16> {
    let (raw, base) = (given.raw, capability.offset);
    let len = CONVENTIONAL_SIZE as u16 - base;
    apply(registers, raw, base, len, &DEVICE);
    registers.update(base, |r| r.shadow |= u32::from(form.version | form.kind << 4) << 16);
    sizes(registers, raw, base);
    if form.version >= 2 {
        apply(registers, raw, base, len, &DEVICE_2);
    }
    if let Some(link) = &form.link {
        link.build(registers, base, form.version);
    }
    let capabilities = read_u32(raw, base + express::DEVICE_CAPABILITIES);
    let resets = capabilities & express::FUNCTION_LEVEL_RESET != 0 && given.resets();
    resets.then(|| {
        registers.update(base + express::DEVICE_CAPABILITIES, |r| r.shadow |= express::FUNCTION_LEVEL_RESET);
        base + express::DEVICE_CONTROL
    })
}

/// Payloads are as large as the host set them, which fits all links on the way: that is the largest that the guest is
/// told of and can write. Requests it may size as it likes up to the specification's 4096 bytes.
fn sizes(registers: &mut Registers, raw: &[u8], base: u16) {
    let control = read_u32(raw, base + express::DEVICE_CONTROL);
    let able = read_u32(raw, base + express::DEVICE_CAPABILITIES) & 0x7;
    let payload = (control >> 5 & 0x7).min(able).min(5);
    registers.update(base + express::DEVICE_CAPABILITIES, |r| r.shadow = r.shadow & !0x7 | payload);
    registers.update(base + express::DEVICE_CONTROL, |r| {
        let request = (control & REQUEST).min(REQUEST_MOST);
        r.shadow = r.shadow & !(PAYLOAD | REQUEST) | payload << 5 | request;
        r.limits = [Limit { mask: PAYLOAD, most: payload << 5 }, Limit { mask: REQUEST, most: REQUEST_MOST }];
    });
}
