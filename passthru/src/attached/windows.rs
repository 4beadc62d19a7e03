//! Pairs of registers in a BAR, an address and a data register, behind which a function has its configuration space or its
//! MSI-X table again. What the guest reaches there is what it finds by the ordinary way; everything else behind the pair is
//! the function's own.

use parking_lot::Mutex;

use crate::function::quirks::{ConfigWindow, MsixWindow, MsixWindowAccess, Quirks};
use crate::host::BarRange;

/// One register of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Which byte the data register stands for, of configuration space.
    ConfigAddress,
    /// That byte and those behind it.
    ConfigData,
    /// Which entry of the MSI-X table is read or written; writing it does that.
    MsixAddress,
    /// What was read, or is to be written.
    MsixData,
}

/// The pairs of a function, and what the guest last wrote to them.
#[derive(Debug)]
pub struct Windows {
    config: &'static [ConfigWindow],
    msix: Option<MsixWindow>,
    latched: Mutex<Latched>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latched {
    config: u32,
    /// An access to the MSI-X table that was made last, since another address was written.
    msix: Option<u32>,
    data: u32,
}

/// What a write to the MSI-X pair amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsixStep {
    /// Nothing of the table: the write is the function's own.
    Own,
    /// A dword of the table is read.
    Read(u64),
    /// A dword of the table is written.
    Write(u64, u32),
}

impl Windows {
    pub fn new(quirks: &Quirks) -> Windows {
        let (config, msix) = (quirks.config_window, quirks.msix_window);
        Windows { config, msix, latched: Mutex::default() }
    }

    /// The registers, four bytes each.
    pub fn registers(&self) -> impl Iterator<Item = (BarRange, Register)> {
        let at = |bar, offset, register| (BarRange { bar, offset, len: 4 }, register);
        let config = self.config.first().into_iter().flat_map(move |w| {
            [at(w.bar, w.address, Register::ConfigAddress), at(w.bar, w.data, Register::ConfigData)]
        });
        let msix = self.msix.into_iter().flat_map(move |w| {
            [at(w.bar, w.address, Register::MsixAddress), at(w.bar, w.data, Register::MsixData)]
        });
        config.chain(msix)
    }

    /// The guest writes the address register of configuration space; only whole dwords count.
    pub fn set_config_address(&self, data: &[u8]) {
        if let Ok(address) = data.try_into().map(u32::from_le_bytes) {
            self.latched.lock().config = address;
        }
    }

    /// Which byte of configuration space the data register stands for.
    pub fn config_offset(&self) -> Option<u16> {
        let address = self.latched.lock().config;
        self.config.iter().find_map(|window| window.config_offset(address))
    }

    /// The guest writes one of the MSI-X pair's registers; only whole dwords count.
    pub fn write_msix(&self, register: Register, data: &[u8]) -> MsixStep {
        let (Some(window), Ok(value)) = (self.msix, data.try_into().map(u32::from_le_bytes)) else {
            return MsixStep::Own;
        };
        let mut latched = self.latched.lock();
        if register == Register::MsixData {
            // The function has it as well, for whatever else the next address may be of.
            latched.data = value;
            return MsixStep::Own;
        }
        let access = window.access(value);
        latched.msix = access.map(|_| value);
        match access {
            None => MsixStep::Own,
            Some(MsixWindowAccess { offset, write: true }) => MsixStep::Write(offset, latched.data),
            Some(MsixWindowAccess { offset, write: false }) => MsixStep::Read(offset),
        }
    }

    /// What the guest reads from one of the MSI-X pair's registers after an access to the table, nothing after another.
    /// The address' highest bit changes when an access is over, and here it is over at once.
    pub fn read_msix(&self, register: Register) -> Option<u32> {
        let latched = self.latched.lock();
        let address = latched.msix?;
        Some(if register == Register::MsixAddress { address ^ 1 << 31 } else { latched.data })
    }

    /// What was read of the table.
    pub fn set_msix_data(&self, data: u32) {
        self.latched.lock().data = data;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::quirks;

    #[test]
    fn configuration_space_is_where_the_address_says() {
        let windows = Windows::new(&quirks::of(0x1002, 0x68f9, 0x03_0000));
        assert_eq!(windows.registers().count(), 2);
        for (address, offset) in
            [(0x4010u32, Some(0x10)), (0x3fff, None), (0x4fff, Some(0xfff)), (0x5000, None)]
        {
            windows.set_config_address(&address.to_le_bytes());
            windows.set_config_address(&[0x12]);
            assert_eq!(windows.config_offset(), offset, "{address:#x}");
        }
    }

    #[test]
    fn the_msix_table_is_never_reached_behind_the_guests_back() {
        let windows = Windows::new(&quirks::of(0x10ec, 0x8168, 0x02_0000));
        let write = |register, value: u32| windows.write_msix(register, &value.to_le_bytes());
        assert_eq!(windows.read_msix(Register::MsixData), None);
        assert_eq!(write(Register::MsixData, 0xfee0_0000), MsixStep::Own);
        assert_eq!(write(Register::MsixAddress, 0x8001_f010), MsixStep::Write(0x10, 0xfee0_0000));
        assert_eq!(windows.read_msix(Register::MsixAddress), Some(0x0001_f010), "done");
        assert_eq!(write(Register::MsixAddress, 0x1_f010), MsixStep::Read(0x10));
        windows.set_msix_data(7);
        assert_eq!(windows.read_msix(Register::MsixData), Some(7));
        assert_eq!(
            write(Register::MsixAddress, 0x8002_f010),
            MsixStep::Own,
            "something else of the function's"
        );
        assert_eq!(windows.read_msix(Register::MsixAddress), None);
        assert_eq!(windows.write_msix(Register::MsixAddress, &[1]), MsixStep::Own);
    }
}
