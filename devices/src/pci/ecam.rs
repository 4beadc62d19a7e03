//! Configuration space in memory: the enhanced configuration access mechanism (PCIe 6.0 §7.2.2).

use std::ops::Range;
use std::sync::Arc;

use passthru::pci::Slot;

use super::access::first_piece;
use super::topology::{Routes, Topology};

/// Bytes that all 256 buses take.
pub const SIZE: u64 = 256 << 20;
/// Bytes that a function takes.
const FUNCTION: u64 = 4 << 10;

/// The ECAM range of buses 0 to 255.
pub struct Ecam {
    topology: Arc<Topology>,
}

/// The slot and the register offset (0 to 4095) at `offset` into ECAM; nothing beyond [`SIZE`].
#[inline]
pub const fn decode(offset: u64) -> Option<(Slot, u16)> {
    if offset >= SIZE {
        return None;
    }
    // Bus in bits 27:20, device in 19:15, function in 14:12: together a requester id.
    Some((Slot::from_requester_id((offset >> 12) as u16), (offset & 0xfff) as u16))
}

/// Where `slot`'s 4 KiB start in ECAM.
pub const fn offset_of(slot: Slot) -> u64 {
    (slot.requester_id() as u64) << 12
}

/// Where in ECAM no function is, by offset: all-ones for whoever reads, and writes do nothing. In ascending order, with
/// functions between any two.
pub fn absent(routes: &Routes) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    for start in routes.iter().map(|(slot, _)| offset_of(slot)).chain([SIZE]) {
        if at < start {
            ranges.push(at..start);
        }
        at = start + FUNCTION;
    }
    ranges
}

impl Ecam {
    /// ECAM of the functions in `topology`.
    pub fn new(topology: Arc<Topology>) -> Ecam {
        Ecam { topology }
    }

    /// The functions that it leads to.
    #[inline]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Reads at `offset` from ECAM's start. All-ones where no function is. Gives the slot of the function that was reached, the
    /// first if there are several; it need not be the one that [`decode`] gives, since a guest numbers the buses behind root
    /// ports itself.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Option<Slot> {
        self.read_by(&self.topology.routes(), offset, data)
    }

    /// The same by the topology's routes, for who has a view of them.
    pub fn read_by(&self, routes: &Routes, offset: u64, data: &mut [u8]) -> Option<Slot> {
        let (mut at, mut rest, mut reached) = (offset, data, None);
        while let Some((piece, tail)) = rest.split_at_mut_checked(first_piece(at, rest.len()))
            && !piece.is_empty()
        {
            match decode(at).and_then(|(place, register)| Some((routes.reach(place)?, register))) {
                Some(((slot, function), register)) => {
                    function.config_read(register, piece);
                    reached.get_or_insert(slot);
                }
                None => piece.fill(0xff),
            }
            at = at.saturating_add(piece.len() as u64);
            rest = tail;
        }
        reached
    }

    /// Writes at `offset` from ECAM's start; gives the slot as [`Ecam::read`] does.
    pub fn write(&self, offset: u64, data: &[u8]) -> Option<Slot> {
        self.write_by(&self.topology.routes(), offset, data)
    }

    /// The same by the topology's routes.
    pub fn write_by(&self, routes: &Routes, offset: u64, data: &[u8]) -> Option<Slot> {
        let (mut at, mut rest, mut reached) = (offset, data, None);
        while let Some((piece, tail)) = rest.split_at_checked(first_piece(at, rest.len()))
            && !piece.is_empty()
        {
            if let Some((place, register)) = decode(at)
                && let Some((slot, function)) = routes.reach(place)
            {
                function.config_write(register, piece);
                reached.get_or_insert(slot);
            }
            at = at.saturating_add(piece.len() as u64);
            rest = tail;
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::topology::tests::{Probe, topology};

    #[test]
    fn decoding() {
        for (offset, text, register) in [
            (0, "0:0:0", 0),
            (0xffc, "0:0:0", 0xffc),
            (0x1000, "0:0:1", 0),
            (0x4_0010, "0:8:0", 0x10),
            (0x10_0000, "1:0:0", 0),
            (SIZE - 1, "255:31:7", 0xfff),
        ] {
            let (slot, got) = decode(offset).unwrap();
            assert_eq!((slot.to_string().as_str(), got), (text, register), "{offset:#x}");
            assert_eq!(offset_of(slot) + u64::from(got), offset);
        }
        assert_eq!(decode(SIZE), None);
        assert_eq!(decode(u64::MAX), None);
    }

    #[test]
    fn accesses_reach_functions_in_pieces() {
        let probe = Probe::new(7);
        let ecam = Ecam::new(Arc::new(topology(&[("0:8:0", probe.clone())])));
        let base = offset_of("0:8:0".parse().unwrap());

        let mut data = [0; 8];
        ecam.read(base + 0x10, &mut data);
        assert_eq!(data, [7; 8]);
        assert_eq!(*probe.reads.lock(), [(0x10, 4), (0x14, 4)]);

        ecam.write(base + 0x41, &[1, 2, 3, 4]);
        let writes = [(0x41, vec![1]), (0x42, vec![2, 3]), (0x44, vec![4])];
        assert_eq!(*probe.writes.lock(), writes);
    }

    #[test]
    fn what_is_absent_is_between_the_functions() {
        let functions = ["0:8:0", "0:8:1", "0:9:0", "255:31:0", "255:31:7"].map(|slot| (slot, Probe::new(1)));
        let named = |topology: &Topology| {
            let ends = |range: Range<u64>| {
                let last = decode(range.end - 1).unwrap().0;
                (decode(range.start).unwrap().0.to_string(), last.to_string())
            };
            absent(&topology.routes()).into_iter().map(ends).collect::<Vec<_>>()
        };
        let ends = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        // The host bridge is at 0:0:0.
        let around =
            [("0:0:1", "0:7:7"), ("0:8:2", "0:8:7"), ("0:9:1", "255:30:7"), ("255:31:1", "255:31:6")];
        let around = around.map(|(first, last)| ends(first, last));
        assert_eq!(named(&topology(&functions)), around);
        assert_eq!(named(&topology(&[])), [ends("0:0:1", "255:31:7")]);
    }

    #[test]
    fn into_the_next_function_and_past_the_end() {
        let (first, last) = (Probe::new(1), Probe::new(2));
        let ecam = Ecam::new(Arc::new(topology(&[
            ("0:8:0", first),
            ("255:31:0", Probe::new(3)),
            ("255:31:7", last),
        ])));
        let mut data = [0; 8];
        ecam.read(offset_of("0:8:1".parse().unwrap()) - 4, &mut data);
        assert_eq!(data, [1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff]);
        ecam.read(SIZE - 4, &mut data);
        assert_eq!(data, [2, 2, 2, 2, 0xff, 0xff, 0xff, 0xff]);
        ecam.write(SIZE - 4, &data);
        for offset in [SIZE, u64::MAX - 3, u64::MAX] {
            data.fill(0);
            ecam.read(offset, &mut data);
            assert_eq!(data, [0xff; 8]);
            ecam.write(offset, &data);
        }
    }
}
