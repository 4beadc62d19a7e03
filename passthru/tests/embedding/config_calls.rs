//! How often an access to configuration space goes to the host: each time is a system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use passthru::attached::{Attached, Fresh};
use passthru::function::{Function, Shape};
use passthru::host::simulated::SimulatedFunction;
use passthru::host::*;
use passthru::pci::Slot;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

use crate::vmm::Vmm;

/// A simulated function that counts what reaches it.
struct Counting {
    inside: SimulatedFunction,
    config: [AtomicU64; 2],
    others: AtomicU64,
}

impl Counting {
    fn other(&self) {
        self.others.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads and writes of configuration space, and other calls, since this was asked last.
    fn taken(&self) -> [u64; 3] {
        let [reads, writes] = &self.config;
        [reads, writes, &self.others].map(|calls| calls.swap(0, Ordering::Relaxed))
    }
}

impl HostFunction for Counting {
    fn name(&self) -> &Arc<str> {
        self.inside.name()
    }

    fn description(&self) -> &Description {
        self.inside.description()
    }

    fn report(&self) -> &Report {
        self.inside.report()
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.config[0].fetch_add(1, Ordering::Relaxed);
        self.inside.config_read(offset, data)
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.config[1].fetch_add(1, Ordering::Relaxed);
        self.inside.config_write(offset, data)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.other();
        self.inside.bar_read(bar, offset, data)
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.other();
        self.inside.bar_write(bar, offset, data)
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.other();
        self.inside.map(range, guest)
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.other();
        self.inside.unmap(range, guest)
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        self.other();
        self.inside.set_vectors(kind, count, changes)
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.other();
        self.inside.disable_vectors(kind)
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.inside.is_pending(kind, vector)
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        self.other();
        self.inside.set_intx(on)
    }

    fn listen(&self, listener: Listener) -> Result<(), HostError> {
        self.inside.listen(listener)
    }

    fn reset(&self) -> Result<(), HostError> {
        self.inside.reset()
    }
}

fn attached() -> (Attached, Arc<Counting>) {
    let vmm = Vmm::new();
    let slot = Slot::new(0, 8, 0).unwrap();
    let inside = SimulatedFunction::new("demo", slot, vmm.ports()).unwrap();
    let host = Arc::new(Counting { inside, config: Default::default(), others: AtomicU64::new(0) });
    let fresh = Fresh::one(host.clone()).unwrap();
    let space = Arc::new(AddressSpace::new(vmm));
    let windows = Arc::new(Windows { memory: vec![0xc000_0000..0xe000_0000], io: vec![] });
    (Attached::new(fresh, slot, Shape::default(), space, windows).unwrap(), host)
}

#[test]
fn a_read_asks_the_host_once_for_what_is_passed_through_and_never_for_the_rest() {
    let (function, host) = attached();
    let core = Function::new(host.description(), host.report(), Shape::default()).unwrap().0;
    let config = function.config();
    host.taken();
    let (mut live, mut shadowed) = (Vec::new(), 0);
    for (offset, len) in (0..4096).flat_map(|offset| [1, 2, 4].map(|len| (offset, len))) {
        if offset % len != 0 {
            continue;
        }
        let asks = core.read_config(offset, usize::from(len), |_, _| false).live != 0;
        let mut data = [0; 4];
        config.config_read(offset, &mut data[..usize::from(len)]);
        assert_eq!(host.taken(), [u64::from(asks), 0, 0], "{len} bytes at {offset:#x}");
        match (asks, len) {
            (true, 4) => live.push(offset),
            (false, 4) => shadowed += 1,
            _ => {}
        }
    }
    // Command and status, what of PCI Express the function says of itself as it runs, and registers of its own kind.
    assert!([0x04, 0x88, 0xf0].iter().all(|offset| live.contains(offset)), "{live:x?}");
    for constant in [0x00, 0x08, 0x10, 0x2c, 0x3c, 0x70] {
        assert!(!live.contains(&constant), "{constant:#x} of {live:x?}");
    }
    assert!(shadowed > 4096 / 4 - 32, "{live:x?}");
}

#[test]
fn a_write_asks_the_host_once_where_it_is_passed_through_and_never_elsewhere() {
    let (function, host) = attached();
    let config = function.config();
    host.taken();
    for (offset, data, calls) in [
        (0x3c, &[7][..], [0, 0, 0]),
        (0x00, &[1, 2, 3, 4], [0, 0, 0]),
        (0x2c, &[1, 2, 3, 4], [0, 0, 0]),
        (0xf0, &[1, 2, 3, 4], [0, 1, 0]),
        (0xf6, &[1, 2], [0, 1, 0]),
    ] {
        config.config_write(offset, data);
        assert_eq!(host.taken(), calls, "{data:x?} at {offset:#x}");
    }
}
