//! `/dev/pptN`: a function that the ppt driver holds, looked at and configured, whether or not a virtual machine has it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::abi::*;
use super::error::OpenError;
use super::file::File;
use super::sys::Sys;
use crate::pci::Space;

/// The open device.
pub(super) struct Device<S: Sys> {
    file: File<S>,
    name: Arc<str>,
}

/// A BAR, as the host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostBar {
    pub(super) space: Space,
    /// Host-physical address, or port.
    pub(super) base: u64,
    /// Bytes.
    pub(super) size: u64,
}

impl<S: Sys> Device<S> {
    pub(super) fn open(sys: Arc<S>, path: &Path) -> Result<Device<S>, OpenError> {
        let file = File::open(sys, path)?.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO) => OpenError::NotThere { path: path.to_owned() },
            _ => OpenError::Open { path: path.to_owned(), source },
        })?;
        Ok(Device { file, name: path.to_string_lossy().into() })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What requests to a virtual machine call it.
    pub(super) fn fd(&self) -> i32 {
        self.file.fd()
    }

    pub(super) fn sys(&self) -> &Arc<S> {
        self.file.sys()
    }

    /// Reads 1, 2 or 4 bytes of configuration space.
    pub(super) fn config_read(&self, offset: u16, width: u32) -> io::Result<u32> {
        let mut io = CfgIo { pci_off: offset.into(), pci_width: width, pci_data: 0 };
        self.file.call(PPT_CFG_READ, &mut io)?;
        Ok(io.pci_data)
    }

    /// Writes 1, 2 or 4 bytes of configuration space. The kernel lets anything through.
    pub(super) fn config_write(&self, offset: u16, width: u32, value: u32) -> io::Result<()> {
        let mut io = CfgIo { pci_off: offset.into(), pci_width: width, pci_data: value };
        self.file.call(PPT_CFG_WRITE, &mut io).map(drop)
    }

    /// A BAR, if it is there and has an address in the host.
    pub(super) fn bar(&self, index: u8) -> io::Result<Option<HostBar>> {
        let mut query = BarQuery { pbq_baridx: index.into(), ..BarQuery::default() };
        match self.file.call(PPT_BAR_QUERY, &mut query) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let space = match query.pbq_type & PCI_ADDR_MASK {
            PCI_ADDR_IO => Space::Io,
            PCI_ADDR_MEM32 | PCI_ADDR_MEM64 => Space::Memory,
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        Ok(Some(HostBar { space, base: query.pbq_base, size: query.pbq_size }))
    }

    /// Reads 1, 2 or 4 bytes of a BAR of I/O ports.
    pub(super) fn port_read(&self, bar: u8, offset: u32, width: u32) -> io::Result<u32> {
        let mut io = BarIo { pbi_bar: bar.into(), pbi_off: offset, pbi_width: width, pbi_data: 0 };
        self.file.call(PPT_BAR_READ, &mut io)?;
        Ok(io.pbi_data)
    }

    /// Writes 1, 2 or 4 bytes of a BAR of I/O ports.
    pub(super) fn port_write(&self, bar: u8, offset: u32, width: u32, value: u32) -> io::Result<()> {
        let mut io = BarIo { pbi_bar: bar.into(), pbi_off: offset, pbi_width: width, pbi_data: value };
        self.file.call(PPT_BAR_WRITE, &mut io).map(drop)
    }
}
