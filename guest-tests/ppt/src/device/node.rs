//! The ioctls of `/dev/pptN`. They ask nobody whether a VM has the function.

use log::debug;
use passthru::host::HostError;
use passthru::pci::bar::BarKind;
use passthru::pci::registers::CONVENTIONAL_SIZE;

use super::{ClaimedBar, Device};
use crate::abi::{BarIo, BarQuery, ConfigIo, Layout, ppt};
use crate::errno::{Errno, Result};
use crate::user_memory::UserMemory;

impl Device {
    /// An ioctl on its node.
    pub fn ioctl(&self, request: i32, user: UserMemory) -> Result<()> {
        match request {
            ppt::CFG_READ => {
                let mut io = ConfigIo(Layout(user.read()?));
                let mut data = [0; 4];
                self.config(&io, &mut data, false)?;
                io.set_data(u32::from_le_bytes(data));
                user.write(&io.0.0)
            }
            ppt::CFG_WRITE => {
                let io = ConfigIo(Layout(user.read()?));
                self.config(&io, &mut io.data().to_le_bytes(), true)
            }
            ppt::BAR_QUERY => {
                let mut query = BarQuery(Layout(user.read()?));
                let index = usize::try_from(query.bar()).map_err(|_| Errno::EINVAL)?;
                if index >= self.bars.len() {
                    return Err(Errno::EINVAL);
                }
                let bar = self.bar(index).ok_or(Errno::ENOENT)?;
                query.set_answer(bar.type_bits(), bar.base, bar.size);
                user.write(&query.0.0)
            }
            ppt::BAR_READ => {
                let mut io = BarIo(Layout(user.read()?));
                let mut data = [0; 4];
                self.ports(&io, &mut data, false)?;
                io.set_data(u32::from_le_bytes(data));
                user.write(&io.0.0)
            }
            ppt::BAR_WRITE => {
                let io = BarIo(Layout(user.read()?));
                self.ports(&io, &mut io.data().to_le_bytes(), true)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    /// An access to configuration space. What nobody answers reads all-ones, as it does on the bus.
    fn config(&self, io: &ConfigIo, data: &mut [u8; 4], write: bool) -> Result<()> {
        let data = narrowed(data, io.width())?;
        let end = io.offset().checked_add(data.len() as u64);
        let there = end.is_some_and(|end| end <= CONVENTIONAL_SIZE as u64);
        match u16::try_from(io.offset()) {
            Ok(offset) if there && write => self.answered(self.host().config_write(offset, data), None),
            Ok(offset) if there => {
                let read = self.host().config_read(offset, data);
                self.answered(read, Some(data));
            }
            _ if write => {}
            _ => data.fill(0xff),
        }
        Ok(())
    }

    /// An access to a BAR of I/O ports.
    fn ports(&self, io: &BarIo, data: &mut [u8; 4], write: bool) -> Result<()> {
        let index = u8::try_from(io.bar()).map_err(|_| Errno::EINVAL)?;
        let is_ports = |bar: &&ClaimedBar| bar.kind == BarKind::Io;
        let bar = self.bar(usize::from(index)).filter(is_ports).ok_or(Errno::EINVAL)?;
        let data = narrowed(data, io.width())?;
        let offset = u64::from(io.offset());
        if offset + data.len() as u64 > bar.size {
            return Err(Errno::EINVAL);
        }
        if write {
            self.answered(self.host().bar_write(index, offset, data), None);
        } else {
            let read = self.host().bar_read(index, offset, data);
            self.answered(read, Some(data));
        }
        Ok(())
    }

    fn answered(&self, result: std::result::Result<(), HostError>, read: Option<&mut [u8]>) {
        if let Err(error) = result {
            debug!("{error}");
            if let Some(data) = read {
                data.fill(0xff);
            }
        }
    }
}

/// The bytes that an access of this width has; the others stay as they are.
fn narrowed(data: &mut [u8; 4], width: u32) -> Result<&mut [u8]> {
    match width {
        1 => data.get_mut(..1),
        2 => data.get_mut(..2),
        4 => data.get_mut(..4),
        _ => None,
    }
    .ok_or(Errno::EINVAL)
}
