//! The configuration registers that a kernel saves before a reset and writes back after it.

use passthru::host::{HostError, HostFunction};
use passthru::pci::capability::{self, Capability, read_u16};
use passthru::pci::registers::{
    BAR0, COMMAND, COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY, INTERRUPT_LINE, ROM_BAR, capability_id,
    express, power,
};

/// Cache line size and latency timer (PCIe 6.0 §7.5.1.1.7).
const CACHE_LINE: u16 = 0x0c;
const LATENCY: u16 = 0x0d;

/// Registers and what they held. Those with bits that a write clears are not among them, nor are MSI and MSI-X, which are
/// set up anew.
pub struct SavedConfig {
    registers: Vec<Register>,
    command: u16,
}

struct Register {
    offset: u16,
    len: usize,
    value: [u8; 4],
}

impl SavedConfig {
    /// Reads them.
    pub fn save(function: &dyn HostFunction) -> Result<SavedConfig, HostError> {
        let mut places = vec![(CACHE_LINE, 1), (LATENCY, 1), (INTERRUPT_LINE, 1), (ROM_BAR, 4)];
        places.extend((0..6).map(|bar| (BAR0 + 4 * bar, 4)));
        if let Some(express) = find(function, capability_id::EXPRESS) {
            let version =
                read_u16(&function.description().config, express.offset + express::CAPABILITIES) & 0xf;
            places
                .extend([express::DEVICE_CONTROL, express::LINK_CONTROL].map(|at| (express.offset + at, 2)));
            if version >= 2 {
                let second = [express::DEVICE_CONTROL_2, express::LINK_CONTROL_2];
                places.extend(second.map(|at| (express.offset + at, 2)));
            }
        }
        let mut registers = Vec::with_capacity(places.len());
        for (offset, len) in places {
            registers.push(Register { offset, len, value: read(function, offset, len)? });
        }
        Ok(SavedConfig { registers, command: command(function)? })
    }

    /// Writes back those that hold something else now, and last the command register, which lets the function answer.
    pub fn restore(&self, function: &dyn HostFunction) -> Result<(), HostError> {
        for Register { offset, len, value } in &self.registers {
            if read(function, *offset, *len)? != *value {
                function.config_write(*offset, value.get(..*len).unwrap_or_default())?;
            }
        }
        function.config_write(COMMAND, &self.command.to_le_bytes())
    }

    /// Memory and I/O decoding and bus mastering on, everything else of the command register as it was.
    pub fn enable(&self, function: &dyn HostFunction) -> Result<(), HostError> {
        let command = self.command | COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        function.config_write(COMMAND, &command.to_le_bytes())
    }
}

/// Brings the function to D0.
pub fn wake(function: &dyn HostFunction) -> Result<(), HostError> {
    let Some(capability) = find(function, capability_id::POWER) else { return Ok(()) };
    let register = capability.offset + power::CONTROL;
    let [low, high, ..] = read(function, register, 2)?;
    let control = u16::from_le_bytes([low, high]);
    if control & power::STATE == 0 {
        return Ok(());
    }
    // Bit 15 (PME status) is cleared by writing 1 (PCIe 6.0 §7.5.2.2).
    let awake = control & !power::STATE & 0x7fff;
    function.config_write(register, &awake.to_le_bytes())
}

fn find(function: &dyn HostFunction, id: u8) -> Option<Capability> {
    capability::walk(&function.description().config).0.into_iter().find(|c| c.id == id)
}

fn command(function: &dyn HostFunction) -> Result<u16, HostError> {
    let [low, high, ..] = read(function, COMMAND, 2)?;
    Ok(u16::from_le_bytes([low, high]))
}

fn read(function: &dyn HostFunction, offset: u16, len: usize) -> Result<[u8; 4], HostError> {
    let mut value = [0; 4];
    function.config_read(offset, value.get_mut(..len).unwrap_or_default())?;
    Ok(value)
}
