//! The few things that a guest program wants from the ACPI tables (ACPI 6.5, chapter 5).

use crate::config::Ecam;
use crate::sleep_type;
use crate::window::Window;

const HEADER: u64 = 36;
/// A longer table is taken for a broken one.
const LONGEST_TABLE: u64 = 1 << 20;
/// No fixed power button: there is none, or it is a device of its own.
const POWER_BUTTON_ABSENT: u32 = 1 << 4;
const RESET_SUPPORTED: u32 = 1 << 10;

/// Root table, checked.
#[derive(Clone, Copy)]
pub struct Acpi {
    root: Window,
    /// Bytes of each address in it: 8 in an XSDT, 4 in an RSDT.
    stride: u64,
}

/// A register that a table names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Register {
    Memory(u64),
    Port(u16),
}

fn sums_to_zero(window: &Window) -> bool {
    (0..window.length()).fold(0u8, |sum, offset| sum.wrapping_add(window.read8(offset))) == 0
}

fn table_at(address: u64) -> Option<Window> {
    if address == 0 {
        return None;
    }
    let length = u64::from(Window::ram(address, HEADER).read32(4));
    let table = (HEADER..=LONGEST_TABLE).contains(&length).then(|| Window::ram(address, length))?;
    sums_to_zero(&table).then_some(table)
}

impl Acpi {
    pub(crate) fn find(rsdp: u64) -> Option<Self> {
        if rsdp == 0 {
            return None;
        }
        let pointer = Window::ram(rsdp, 36);
        if pointer.read64(0) != u64::from_le_bytes(*b"RSD PTR ") || !sums_to_zero(&pointer.part(0, 20)) {
            return None;
        }
        let extended = pointer.read8(15) >= 2 && pointer.read64(24) != 0;
        if extended {
            Some(Self { root: table_at(pointer.read64(24))?, stride: 8 })
        } else {
            Some(Self { root: table_at(u64::from(pointer.read32(16)))?, stride: 4 })
        }
    }

    /// Addresses of the tables that the root table lists.
    fn addresses(&self) -> impl Iterator<Item = u64> {
        let Self { root, stride } = *self;
        (0..(root.length() - HEADER) / stride).map(move |n| match stride {
            // Behind a header of 36 bytes they are not aligned.
            8 => u64::from(root.read32(HEADER + n * 8)) | u64::from(root.read32(HEADER + n * 8 + 4)) << 32,
            _ => u64::from(root.read32(HEADER + n * 4)),
        })
    }

    /// The first table with that signature, header and all. `None` too if its checksum is wrong.
    #[must_use]
    pub fn table(&self, signature: &[u8; 4]) -> Option<Window> {
        let wanted = u32::from_le_bytes(*signature);
        self.addresses()
            .filter(|&address| address != 0)
            .find(|&address| Window::ram(address, HEADER).read32(0) == wanted)
            .and_then(table_at)
    }

    /// ECAM of segment 0.
    #[must_use]
    pub fn ecam(&self) -> Option<Ecam> {
        let mcfg = self.table(b"MCFG")?;
        let entries = (mcfg.length() - HEADER).saturating_sub(8) / 16;
        (0..entries).map(|n| mcfg.part(HEADER + 8 + n * 16, 16)).find(|entry| entry.read16(8) == 0).map(
            |entry| {
                let base = u64::from(entry.read32(0)) | u64::from(entry.read32(4)) << 32;
                Ecam::new(base, entry.read8(10), entry.read8(11))
            },
        )
    }

    /// Local APIC ids of the processors that the MADT calls enabled.
    pub fn processors(&self) -> impl Iterator<Item = u8> {
        let madt = self.table(b"APIC");
        let mut offset = HEADER + 8;
        core::iter::from_fn(move || {
            let madt = madt?;
            while offset + 2 <= madt.length() {
                let (kind, length) = (madt.read8(offset), u64::from(madt.read8(offset + 1)));
                let entry = offset;
                offset += length.max(2);
                if kind == 0 && length >= 8 && offset <= madt.length() && madt.read8(entry + 4) & 1 != 0 {
                    return Some(madt.read8(entry + 3));
                }
            }
            None
        })
    }

    fn fadt(&self) -> Option<Window> {
        self.table(b"FACP")
    }

    /// PM1a control register and the sleep type of S5.
    #[must_use]
    pub fn power_off(&self) -> Option<(u16, u8)> {
        let fadt = self.fadt()?;
        let port = u16::try_from(fadt.read32(64)).ok().filter(|&port| port != 0)?;
        let wide = if fadt.length() >= 148 { fadt.read32(140) } else { 0 };
        let dsdt = table_at(if wide != 0 { u64::from(wide) } else { u64::from(fadt.read32(40)) })?;
        Some((port, sleep_type::s5(dsdt.length(), |offset| dsdt.read8(offset))?))
    }

    /// PM1a event registers and the GSI of the system control interrupt, where these have a power button.
    #[must_use]
    pub fn power_button(&self) -> Option<(u16, u8)> {
        let fadt = self.fadt()?;
        let port = u16::try_from(fadt.read32(56)).ok().filter(|&port| port != 0)?;
        let is_fixed = fadt.read32(112) & POWER_BUTTON_ABSENT == 0;
        let gsi = u8::try_from(fadt.read16(46)).ok()?;
        is_fixed.then_some((port, gsi))
    }

    /// Reset register and what is to be written to it.
    #[must_use]
    pub fn reset(&self) -> Option<(Register, u8)> {
        let fadt = self.fadt()?;
        if fadt.length() < 129 || fadt.read32(112) & RESET_SUPPORTED == 0 {
            return None;
        }
        let address = fadt.read64(120);
        let register = match fadt.read8(116) {
            0 => Register::Memory(address),
            1 => Register::Port(u16::try_from(address).ok()?),
            _ => return None,
        };
        Some((register, fadt.read8(128)))
    }
}
