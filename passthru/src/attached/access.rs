//! What a guest's accesses do: configuration space, and the trapped parts of BARs.

use log::debug;

use super::claims::Answers;
use super::inner::Inner;
use super::msix_pages::Store;
use super::windows::{MsixStep, Register};
use crate::function::{ConfigRead, Mirror};
use crate::host::ROM;
use crate::pci::ConfigAccess;
use crate::ports::BarAccess;

impl Inner {
    /// Cuts an access to a mirror of configuration space, from byte `offset` of that on, into accesses to it, which do not
    /// cross dwords.
    fn config_parts(offset: u64, len: usize) -> impl Iterator<Item = (u16, std::ops::Range<usize>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let offset = u16::try_from(offset.checked_add(at as u64)?).ok()?;
            let room = (4 - usize::from(offset & 3)).min(len.checked_sub(at).filter(|left| *left > 0)?);
            // One, two or four bytes, aligned.
            let part = if room == 4 {
                4
            } else if room >= 2 && offset & 1 == 0 {
                2
            } else {
                1
            };
            at += part;
            Some((offset, at - part..at))
        })
    }

    /// Some drivers acknowledge interrupts by a write, through a mirror, of the first bytes of the MSI capability.
    fn acknowledges(&self, mirror: &Mirror, offset: u64) -> bool {
        let capability = || self.core.lock().function.msi_capability().map(u64::from);
        mirror.msi_acknowledge && capability().is_some_and(|at| (at..at + 2).contains(&offset))
    }
}

impl Inner {
    fn write_table(&self, offset: u64, data: &[u8]) {
        let mut core = self.core.lock();
        if !self.presence.is_there() {
            return;
        }
        let mut effects = std::mem::take(&mut core.effects);
        if core.function.write_msix_table(offset, data, &mut effects) {
            self.pages.store(&core.function, offset, data.len(), Store::Before);
            self.carry_out(&mut core, effects.drain(..));
            self.pages.store(&core.function, offset, data.len(), Store::After);
        }
        core.effects = effects;
    }

    /// Reads a register of a window from byte `at` on; false when what is behind it now is the function's own.
    fn window_read(&self, register: Register, at: u64, data: &mut [u8]) -> bool {
        let windows = &self.claims.windows;
        match register {
            Register::ConfigAddress => false,
            Register::ConfigData => {
                let Some(offset) = windows.config_offset() else { return false };
                for (offset, range) in Inner::config_parts(u64::from(offset) + at, data.len()) {
                    if let Some(part) = data.get_mut(range) {
                        self.config_read(offset, part);
                    }
                }
                true
            }
            Register::MsixAddress | Register::MsixData => {
                let Some(value) = windows.read_msix(register) else { return false };
                for (byte, from) in data.iter_mut().zip(value.to_le_bytes().into_iter().skip(at as usize)) {
                    *byte = from;
                }
                true
            }
        }
    }

    /// Writes a register of a window from byte `at` on; false when the function is to have the write.
    fn window_write(&self, register: Register, at: u64, data: &[u8]) -> bool {
        let windows = &self.claims.windows;
        match register {
            Register::ConfigAddress => {
                windows.set_config_address(data);
                false
            }
            Register::ConfigData => {
                let Some(offset) = windows.config_offset() else { return false };
                for (offset, range) in Inner::config_parts(u64::from(offset) + at, data.len()) {
                    self.config_write(offset, data.get(range).unwrap_or_default());
                }
                true
            }
            Register::MsixAddress | Register::MsixData => match windows.write_msix(register, data) {
                MsixStep::Own => false,
                MsixStep::Read(offset) => {
                    let mut entry = [0; 4];
                    self.core.lock().function.read_msix_table(offset, &mut entry);
                    windows.set_msix_data(u32::from_le_bytes(entry));
                    true
                }
                MsixStep::Write(offset, value) => {
                    self.write_table(offset, &value.to_le_bytes());
                    true
                }
            },
        }
    }
}

impl ConfigAccess for Inner {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        // Not under the lock: a function that is being reset, or has left, answers nothing, and nobody waits for it.
        if !self.presence.is_there() {
            return data.fill(0xff);
        }
        let ConfigRead { mut value, live } = {
            let core = self.core.lock();
            core.function.read_config(offset, data.len(), |kind, vector| self.host.is_pending(kind, vector))
        };
        if live != 0 {
            let mut now = [0xff; 4];
            // A function that no longer answers reads all-ones, as on a bus.
            if let Some(bytes) = now.get_mut(..data.len())
                && let Err(error) = self.host.config_read(offset, bytes)
            {
                debug!("{error}");
            }
            value |= u32::from_le_bytes(now) & live;
        }
        match data {
            [a, b, c, d] => [*a, *b, *c, *d] = value.to_le_bytes(),
            _ => data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from),
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        if !self.presence.is_there() {
            return;
        }
        let mut core = self.core.lock();
        // A reset may have begun meanwhile.
        if !self.presence.is_there() {
            return;
        }
        let mut effects = std::mem::take(&mut core.effects);
        core.function.write_config(offset, data, &mut effects);
        self.carry_out(&mut core, effects.drain(..));
        core.effects = effects;
    }
}

impl BarAccess for Inner {
    fn bar_read(&self, bar: u8, mut offset: u64, mut data: &mut [u8]) {
        if !self.presence.is_there() {
            return data.fill(0xff);
        }
        while !data.is_empty() {
            let (who, at, room) = self.claims.answers(bar, offset);
            let len = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (part, rest) = std::mem::take(&mut data).split_at_mut(len);
            match who {
                Answers::Table => self.core.lock().function.read_msix_table(at, part),
                Answers::Pending => {
                    let pending = |kind, vector| self.host.is_pending(kind, vector);
                    self.core.lock().function.read_msix_pending(at, part, pending);
                }
                Answers::Config(_) => {
                    for (offset, range) in Inner::config_parts(at, part.len()) {
                        if let Some(part) = part.get_mut(range) {
                            self.config_read(offset, part);
                        }
                    }
                }
                Answers::Rom => {
                    if let Some(rom) = &self.claims.rom {
                        rom.read(at, part);
                    }
                }
                Answers::Window(register) if self.window_read(register, at, part) => {}
                Answers::Window(_) | Answers::Host => {
                    if let Err(error) = self.host.bar_read(bar, offset, part) {
                        debug!("{error}");
                        part.fill(0xff);
                    }
                }
            }
            offset += len as u64;
            data = rest;
        }
    }

    fn bar_write(&self, bar: u8, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() && self.presence.is_there() {
            let (who, at, room) = self.claims.answers(bar, offset);
            let (part, rest) = data.split_at(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            match who {
                Answers::Table => self.write_table(at, part),
                // Pending bits are read-only (PCIe 6.0 §7.7.2.7).
                Answers::Pending => {}
                // Nor is a ROM written.
                Answers::Rom => {}
                Answers::Host if bar == ROM => {}
                Answers::Config(mirror) => {
                    for (offset, range) in Inner::config_parts(at, part.len()) {
                        self.config_write(offset, part.get(range).unwrap_or_default());
                    }
                    if self.acknowledges(&mirror, at)
                        && let Err(error) = self.host.bar_write(bar, offset, part)
                    {
                        debug!("{error}");
                    }
                }
                Answers::Window(register) if self.window_write(register, at, part) => {}
                Answers::Window(_) | Answers::Host => {
                    if let Err(error) = self.host.bar_write(bar, offset, part) {
                        debug!("{error}");
                    }
                }
            }
            offset += part.len() as u64;
            data = rest;
        }
    }
}
