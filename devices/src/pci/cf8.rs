//! Configuration space at ports 0xcf8 to 0xcff: configuration mechanism #1 (PCI 3.0 §3.2.2.3.2), and the
//! chipset's reset control register among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use passthru::pci::Slot;

use super::topology::{Routes, Topology};
use crate::{EventSink, MachineEvent, PortDevice};

/// Ports that [`Cf8`] takes.
pub const SIZE: u16 = 8;

/// CONFIG_ADDRESS: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// What CONFIG_ADDRESS holds: the enable bit, bus, device, function, dword. The others are reserved and read
/// zero; AMD's extended register number in bits 27:24 is not there, since ECAM is.
const ADDRESS_MASK: u32 = ENABLE | 0x00ff_fffc;
/// CONFIG_ADDRESS, from the first port.
const ADDRESS: u16 = 0;
/// Reset control register, from the first port.
const RESET_CONTROL: u16 = 1;
/// A write of one resets; bit 1 says which kind, which makes no difference here (Intel ICH9 §13.7.5,
/// RST_CNT).
const RESET_CPU: u8 = 1 << 2;
/// CONFIG_DATA, from the first port.
const DATA: u16 = 4;

/// Ports 0xcf8 to 0xcff, one set for all vCPUs. Guests serialize their use of the pair of registers
/// themselves.
///
/// CONFIG_ADDRESS answers 4-byte accesses only: other accesses to its ports read all-ones and write nothing,
/// but for a one-byte write to 0xcf9, the reset control register, which sends [`MachineEvent::Reset`] when
/// bit 2 is set.
pub struct Cf8 {
    topology: Arc<Topology>,
    address: AtomicU32,
    events: EventSink,
}

/// The slot and the dword's register offset (0 to 252) that CONFIG_ADDRESS holds; nothing with the enable bit
/// clear.
#[inline]
pub const fn decode(address: u32) -> Option<(Slot, u16)> {
    if address & ENABLE == 0 {
        return None;
    }
    Some((Slot::from_requester_id((address >> 8) as u16), (address & 0xfc) as u16))
}

impl Cf8 {
    /// The functions in `topology`.
    pub fn new(topology: Arc<Topology>, events: EventSink) -> Cf8 {
        Cf8 { topology, address: AtomicU32::new(0), events }
    }

    /// The functions that it leads to.
    #[inline]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// CONFIG_ADDRESS as it is.
    pub fn address(&self) -> u32 {
        // One register, no other memory to order: what vCPUs make of the pair, their own lock orders.
        self.address.load(Ordering::Relaxed)
    }

    /// A 4-byte write to CONFIG_ADDRESS, for whoever gets those by another way, such as a coalesced ring.
    pub fn set_address(&self, value: u32) {
        self.address.store(value & ADDRESS_MASK, Ordering::Relaxed);
    }

    /// What an access of `length` bytes to CONFIG_DATA's port `offset` reaches: a slot's register.
    fn target(&self, offset: u16, length: usize) -> Option<(Slot, u16)> {
        let byte = offset.checked_sub(DATA)?;
        // Nor across the end: an access that crosses a dword never is one configuration access.
        if !matches!(length, 1 | 2 | 4) || usize::from(byte) + length > 4 {
            return None;
        }
        let (slot, register) = decode(self.address())?;
        Some((slot, register + byte))
    }

    /// Reads at `offset`. Where that is an access to configuration space, gives the slot of the function that it reached, if
    /// it reached one, as [`Ecam::read`](super::ecam::Ecam::read) does.
    pub fn read(&self, offset: u16, data: &mut [u8]) -> Option<Option<Slot>> {
        self.read_by(&self.topology.routes(), offset, data)
    }

    /// The same by the topology's routes, for who has a view of them.
    pub fn read_by(&self, routes: &Routes, offset: u16, data: &mut [u8]) -> Option<Option<Slot>> {
        if let Some((place, register)) = self.target(offset, data.len()) {
            let Some((slot, function)) = routes.reach(place) else {
                data.fill(0xff);
                return Some(None);
            };
            function.config_read(register, data);
            return Some(Some(slot));
        }
        match (offset, <&mut [u8; 4]>::try_from(&mut *data)) {
            (ADDRESS, Ok(dword)) => *dword = self.address().to_le_bytes(),
            _ => data.fill(0xff),
        }
        None
    }

    /// Writes at `offset`; gives what [`Cf8::read`] does.
    pub fn write(&self, offset: u16, data: &[u8]) -> Option<Option<Slot>> {
        self.write_by(&self.topology.routes(), offset, data)
    }

    /// The same by the topology's routes.
    pub fn write_by(&self, routes: &Routes, offset: u16, data: &[u8]) -> Option<Option<Slot>> {
        if let Some((place, register)) = self.target(offset, data.len()) {
            let reached = routes.reach(place);
            if let Some((_, function)) = reached {
                function.config_write(register, data);
            }
            return Some(reached.map(|(slot, _)| slot));
        }
        match (offset, data) {
            (ADDRESS, &[b0, b1, b2, b3]) => self.set_address(u32::from_le_bytes([b0, b1, b2, b3])),
            (RESET_CONTROL, &[value]) if value & RESET_CPU != 0 => (self.events)(MachineEvent::Reset),
            _ => {}
        }
        None
    }
}

impl PortDevice for Cf8 {
    fn read(&self, offset: u16, data: &mut [u8]) {
        Cf8::read(self, offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        Cf8::write(self, offset, data);
    }

    fn reset(&self) {
        self.set_address(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::recorder;
    use crate::pci::topology::tests::{Probe, topology};

    fn cf8(functions: &[(&str, Arc<Probe>)]) -> Cf8 {
        Cf8::new(Arc::new(topology(functions)), recorder().0)
    }

    fn read32(cf8: &Cf8, offset: u16) -> u32 {
        let mut data = [0; 4];
        cf8.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn decoding() {
        for (address, target) in [
            (0x8000_0000, Some(("0:0:0", 0))),
            (0x8000_4010, Some(("0:8:0", 0x10))),
            (0x8000_41fc, Some(("0:8:1", 0xfc))),
            (0x80ff_ff3c, Some(("255:31:7", 0x3c))),
            (0x0000_4010, None),
            (0x7fff_ffff, None),
        ] {
            let got = decode(address).map(|(slot, register)| (slot.to_string(), register));
            assert_eq!(got, target.map(|(slot, register)| (slot.to_owned(), register)), "{address:#x}");
        }
    }

    #[test]
    fn data_accesses() {
        let probe = Probe::new(9);
        let cf8 = cf8(&[("0:8:0", probe.clone())]);
        cf8.write(0, &0x8000_4010u32.to_le_bytes());
        for (offset, length, register) in [
            (4, 4, Some(0x10)),
            (4, 1, Some(0x10)),
            (7, 1, Some(0x13)),
            (6, 2, Some(0x12)),
            (5, 2, Some(0x11)),
            (7, 2, None),
            (5, 4, None),
            (4, 3, None),
            (4, 8, None),
            (8, 1, None),
        ] {
            probe.reads.lock().clear();
            probe.writes.lock().clear();
            let mut data = vec![0; length];
            cf8.read(offset, &mut data);
            cf8.write(offset, &data);
            let reads: Vec<_> = register.map(|register| (register, length)).into_iter().collect();
            let writes: Vec<_> = register.map(|register| (register, data.clone())).into_iter().collect();
            assert_eq!(*probe.reads.lock(), reads, "{offset} {length}");
            assert_eq!(*probe.writes.lock(), writes, "{offset} {length}");
            assert_eq!(data, vec![if register.is_some() { 9 } else { 0xff }; length]);
        }
    }

    #[test]
    fn nothing_there_or_not_enabled() {
        let probe = Probe::new(9);
        let cf8 = cf8(&[("0:8:0", probe.clone())]);
        for address in [0x8000_4810, 0x8001_4010, 0x0000_4010] {
            cf8.set_address(address);
            assert_eq!(read32(&cf8, 4), u32::MAX, "{address:#x}");
            cf8.write(4, &[0; 4]);
        }
        assert!(probe.reads.lock().is_empty() && probe.writes.lock().is_empty());
    }

    #[test]
    fn the_address_register() {
        let cf8 = cf8(&[]);
        cf8.write(0, &0xffff_ffffu32.to_le_bytes());
        assert_eq!(read32(&cf8, 0), 0x80ff_fffc, "reserved bits read zero");
        // Linux' probe of mechanism #1: a byte to 0xcfb, then the register.
        cf8.write(3, &[1]);
        cf8.write(0, &0x8000_0000u32.to_le_bytes());
        assert_eq!(read32(&cf8, 0), 0x8000_0000);

        for (offset, length) in [(0, 1), (0, 2), (1, 1), (2, 2), (3, 1), (1, 4), (2, 4)] {
            let mut data = vec![0; length];
            cf8.read(offset, &mut data);
            assert_eq!(data, vec![0xff; length], "{offset} {length}");
            cf8.write(offset, &vec![0; length]);
            assert_eq!(cf8.address(), 0x8000_0000, "{offset} {length}");
        }
        cf8.reset();
        assert_eq!(cf8.address(), 0);
    }

    #[test]
    fn the_extended_register_number_is_ignored() {
        let probe = Probe::new(9);
        let cf8 = cf8(&[("0:8:0", probe.clone())]);
        cf8.set_address(0x8f00_4010);
        assert_eq!(read32(&cf8, 4), 0x0909_0909);
        assert_eq!(*probe.reads.lock(), [(0x10, 4)]);
    }

    #[test]
    fn reset_control() {
        for (offset, data, resets) in [
            (1, &[0x06][..], true),
            (1, &[0x0e], true),
            (1, &[0x04], true),
            (1, &[0x02], false),
            (1, &[0x06, 0], false),
            (0, &[0x06], false),
            (2, &[0x06], false),
            (0, &[0, 0x06, 0, 0], false),
        ] {
            let (events, seen) = recorder();
            Cf8::new(Arc::new(topology(&[])), events).write(offset, data);
            assert_eq!(*seen.lock(), vec![MachineEvent::Reset; resets.into()], "{offset} {data:x?}");
        }
    }
}
