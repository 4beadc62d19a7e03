//! Which function is in which slot.

use std::sync::Arc;

use passthru::pci::{ConfigAccess, Slot};

use super::host_bridge::HostBridge;
use super::slots::{self, HOST_BRIDGE, SlotConflict};

/// A function, as decoders reach it.
pub type Function = Arc<dyn ConfigAccess>;

/// Functions by device and function number.
type Bus = [Option<Function>; 256];

/// All functions of the guest, the host bridge among them. It does not change once built, so a lookup is two
/// array accesses without a lock or a reference count.
pub struct Topology {
    buses: Box<[Option<Box<Bus>>; 256]>,
}

/// Collects functions for a [`Topology`].
#[derive(Default)]
pub struct Builder {
    functions: Vec<(Slot, Function)>,
}

impl Builder {
    /// Puts `function` at `slot`.
    pub fn add(&mut self, slot: Slot, function: Function) {
        self.functions.push((slot, function));
    }

    /// The topology, or everything that [`slots::check`] has against it.
    pub fn build(self) -> Result<Topology, Vec<SlotConflict>> {
        let slots: Vec<Slot> = self.functions.iter().map(|(slot, _)| *slot).collect();
        slots::check(&slots)?;

        let host_bridge = HostBridge::new(slots::is_multi_function(&slots, HOST_BRIDGE));
        let mut topology = Topology { buses: Box::new([const { None }; 256]) };
        topology.put(HOST_BRIDGE, Arc::new(host_bridge));
        for (slot, function) in self.functions {
            topology.put(slot, function);
        }
        Ok(topology)
    }
}

impl Topology {
    /// A topology to be filled; the host bridge at [`HOST_BRIDGE`] comes by itself.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The function at `slot`.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&Function> {
        let bus = self.buses.get(usize::from(slot.bus()))?.as_deref()?;
        bus.get(usize::from(slot.devfn()))?.as_ref()
    }

    /// The buses that have functions, in rising order; bus 0 is always there.
    pub fn buses(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).zip(self.buses.iter()).filter(|(_, bus)| bus.is_some()).map(|(number, _)| number)
    }

    /// The functions of one bus, by device and function.
    pub fn functions_on(&self, bus: u8) -> impl Iterator<Item = (Slot, &Function)> {
        let functions = self.buses.get(usize::from(bus)).and_then(|bus| bus.as_deref());
        (0..=u8::MAX).zip(functions.into_iter().flatten()).filter_map(move |(devfn, function)| {
            let slot = Slot::from_requester_id(u16::from_be_bytes([bus, devfn]));
            Some((slot, function.as_ref()?))
        })
    }

    /// The functions of the device that `slot` belongs to, by function.
    pub fn functions_of_device(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Function)> {
        (0..8).filter_map(move |number| {
            let slot = slot.with_function(number);
            Some((slot, self.get(slot)?))
        })
    }

    /// All functions, by bus, device and function.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Function)> {
        self.buses().flat_map(|bus| self.functions_on(bus))
    }

    fn put(&mut self, slot: Slot, function: Function) {
        let Some(bus) = self.buses.get_mut(usize::from(slot.bus())) else { return };
        let bus = bus.get_or_insert_with(|| Box::new([const { None }; 256]));
        if let Some(entry) = bus.get_mut(usize::from(slot.devfn())) {
            *entry = Some(function);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// A function whose registers read as its own requester id, and that keeps the accesses it got.
    #[derive(Default)]
    pub(crate) struct Probe {
        pub(crate) id: u8,
        pub(crate) reads: Mutex<Vec<(u16, usize)>>,
        pub(crate) writes: Mutex<Vec<(u16, Vec<u8>)>>,
    }

    impl Probe {
        pub(crate) fn new(id: u8) -> Arc<Probe> {
            Arc::new(Probe { id, ..Probe::default() })
        }
    }

    impl ConfigAccess for Probe {
        fn config_read(&self, offset: u16, data: &mut [u8]) {
            assert!(offset < 4096 && matches!(data.len(), 1 | 2 | 4), "{offset} {}", data.len());
            assert!(usize::from(offset & 3) + data.len() <= 4, "crosses a dword: {offset} {}", data.len());
            self.reads.lock().push((offset, data.len()));
            data.fill(self.id);
        }

        fn config_write(&self, offset: u16, data: &[u8]) {
            assert!(offset < 4096 && matches!(data.len(), 1 | 2 | 4), "{offset} {}", data.len());
            assert!(usize::from(offset & 3) + data.len() <= 4, "crosses a dword: {offset} {}", data.len());
            self.writes.lock().push((offset, data.to_vec()));
        }
    }

    pub(crate) fn topology(functions: &[(&str, Arc<Probe>)]) -> Topology {
        let mut builder = Topology::builder();
        for (slot, function) in functions {
            builder.add(slot.parse().unwrap(), function.clone());
        }
        builder.build().unwrap()
    }

    fn first_byte(function: &Function) -> u8 {
        let mut data = [0];
        function.config_read(0, &mut data);
        data[0]
    }

    #[test]
    fn lookup_and_order() {
        let built = topology(&[
            ("3:5:0", Probe::new(4)),
            ("0:8:1", Probe::new(2)),
            ("255:31:0", Probe::new(5)),
            ("0:8:0", Probe::new(1)),
            ("3:0:0", Probe::new(3)),
        ]);
        let seen: Vec<(String, u8)> =
            built.iter().map(|(slot, function)| (slot.to_string(), first_byte(function))).collect();
        let expected =
            [("0:0:0", 0x36), ("0:8:0", 1), ("0:8:1", 2), ("3:0:0", 3), ("3:5:0", 4), ("255:31:0", 5)];
        assert_eq!(seen, expected.map(|(slot, id)| (slot.to_owned(), id)));
        assert_eq!(built.buses().collect::<Vec<_>>(), [0, 3, 255]);

        for (text, id) in [("0:8:1", Some(2)), ("0:8:2", None), ("1:8:0", None), ("255:31:0", Some(5))] {
            let slot = text.parse().unwrap();
            assert_eq!(built.get(slot).map(first_byte), id, "{text}");
        }
        let device = built.functions_of_device("0:8:1".parse().unwrap());
        assert_eq!(device.map(|(slot, _)| slot.function()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(built.functions_on(4).count(), 0);
    }

    #[test]
    fn full() {
        let mut builder = Topology::builder();
        for id in 1..=u16::MAX {
            builder.add(Slot::from_requester_id(id), Probe::new(id as u8));
        }
        let built = builder.build().unwrap();
        assert_eq!(built.iter().count(), 1 << 16);
        assert!(built.iter().skip(1).all(|(slot, function)| first_byte(function) == slot.devfn()));
    }

    #[test]
    fn the_host_bridge_shares_its_device() {
        for (functions, header_type) in
            [(&[][..], 0), (&[("0:1:0", Probe::new(1))], 0), (&[("0:0:1", Probe::new(1))], 0x80)]
        {
            let mut data = [0xff];
            topology(functions).get(HOST_BRIDGE).unwrap().config_read(0x0e, &mut data);
            assert_eq!(data, [header_type]);
        }
    }

    #[test]
    fn conflicts_are_refused() {
        let mut builder = Topology::builder();
        builder.add(HOST_BRIDGE, Probe::new(1));
        builder.add("0:8:1".parse().unwrap(), Probe::new(1));
        assert_eq!(builder.build().err().map(|conflicts| conflicts.len()), Some(2));
    }
}
