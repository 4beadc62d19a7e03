use std::sync::atomic::AtomicBool;
use std::thread;

use devices::MachineEvent;
use devices::pci::topology::Topology;

use super::*;

fn ring() -> Ring {
    Ring {
        first: AtomicU32::new(0),
        last: AtomicU32::new(0),
        entries: std::array::from_fn(|_| Entry::default()),
    }
}

impl Ring {
    /// As the kernel does it: false when the write has to exit.
    fn put(&self, address: u64, len: u32, data: u64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let next = (last + 1) % ENTRIES as u32;
        if last as usize >= ENTRIES || next == self.first.load(Ordering::Acquire) {
            return false;
        }
        let entry = &self.entries[last as usize];
        entry.address.store(address, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.pio.store(1, Ordering::Relaxed);
        entry.data.store(data, Ordering::Relaxed);
        self.last.store(next, Ordering::Release);
        true
    }

    fn taken(&self) -> Vec<(u64, Vec<u8>)> {
        let mut taken = Vec::new();
        let drained = self.drain(|port, data| {
            assert!(!self.is_empty(), "not before it has had its effect");
            taken.push((port, data.to_vec()));
        });
        assert!(drained as usize >= taken.len());
        taken
    }
}

#[test]
fn the_kernels_layout() {
    let ring = ring();
    let base = (&raw const ring) as usize;
    assert_eq!((&raw const ring.entries) as usize - base, size_of::<kvm_coalesced_mmio_ring>());
    let entry = &ring.entries[0];
    let base = (&raw const *entry) as usize;
    for (mine, kernels) in [
        ((&raw const entry.len) as usize, std::mem::offset_of!(kvm_coalesced_mmio, len)),
        ((&raw const entry.pio) as usize, std::mem::offset_of!(kvm_coalesced_mmio, __bindgen_anon_1)),
        ((&raw const entry.data) as usize, std::mem::offset_of!(kvm_coalesced_mmio, data)),
    ] {
        assert_eq!(mine - base, kernels);
    }
    assert_eq!(ENTRIES, 170);
}

#[test]
fn writes_come_out_in_order_wherever_the_ring_begins() {
    for begin in [0, 1, 100, ENTRIES as u32 - 2, ENTRIES as u32 - 1] {
        for count in [0, 1, 2, ENTRIES - 2, ENTRIES - 1] {
            let ring = ring();
            ring.first.store(begin, Ordering::Relaxed);
            ring.last.store(begin, Ordering::Relaxed);
            let put: Vec<u64> = (0..count as u64).map(|number| 0x8000_0000 | number).collect();
            assert!(put.iter().all(|value| ring.put(0xcf8, 4, *value)), "{begin} {count}");
            assert_eq!(ring.put(0xcf8, 4, 0), count < ENTRIES - 1, "one entry stays free: {begin} {count}");
            let taken = ring.taken();
            let values = taken.iter().map(|(port, data)| {
                assert_eq!(*port, 0xcf8);
                u64::from(u32::from_le_bytes(data.as_slice().try_into().unwrap()))
            });
            assert_eq!(values.take(count).collect::<Vec<_>>(), put, "{begin} {count}");
            assert!(ring.is_empty(), "{begin} {count}");
            assert_eq!(ring.taken(), []);
        }
    }
}

#[test]
fn indices_and_lengths_that_the_kernel_never_has() {
    for (first, last) in
        [(0, u32::MAX), (u32::MAX, 0), (170, 170), (171, 5), (5, 171), (u32::MAX, u32::MAX - 1)]
    {
        let ring = ring();
        ring.first.store(first, Ordering::Relaxed);
        ring.last.store(last, Ordering::Relaxed);
        assert!(ring.drain(|_, _| ()) < ENTRIES as u64, "{first} {last}");
        ring.discard();
        assert!(ring.is_empty(), "{first} {last}");
    }
    let ring = ring();
    for len in [9, u32::MAX, 8, 0] {
        assert!(ring.put(0xcf8, len, 0));
    }
    assert_eq!(ring.taken(), [(0xcf8, vec![0; 8]), (0xcf8, vec![])]);
    assert!(ring.put(0xcf8, 4, 0));
    ring.entries[4].pio.store(0, Ordering::Relaxed);
    assert_eq!(ring.taken(), [], "memory is not coalesced");
}

#[test]
fn discarded_writes_do_not_come_out() {
    let ring = ring();
    for value in 0..100 {
        ring.put(0xcf9, 1, value);
    }
    ring.discard();
    assert!(ring.is_empty());
    assert_eq!(ring.taken(), []);
    assert!(ring.put(0xcf8, 4, 7));
    assert_eq!(ring.taken(), [(0xcf8, vec![7, 0, 0, 0])]);
}

#[test]
fn what_a_write_does_is_up_to_its_width_and_port() {
    const ADDRESS: u64 = 0x8000_1234;
    for (port, len, data, address, resets) in [
        (0xcf8, 4, ADDRESS, 0x8000_1234, 0),
        (0xcf8, 1, 6, 0, 0),
        (0xcf8, 2, 0x600, 0, 0),
        (0xcf9, 1, 6, 0, 1),
        (0xcf9, 1, 2, 0, 0),
        (0xcf9, 2, 6, 0, 0),
        (0xcfa, 2, 6, 0, 0),
        (0xcfb, 1, 6, 0, 0),
        (0xcf9, 3, 6, 0, 0),
        (0xcf8, 8, ADDRESS, 0, 0),
        (0xcf7, 1, 6, 0, 0),
        (0x10cf9, 1, 6, 0, 0),
        (u64::MAX, 1, 6, 0, 0),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let topology = Arc::new(Topology::builder().build().unwrap());
        let cf8 = Cf8::new(topology, Arc::new(move |event| kept.lock().push(event)));
        let ring = ring();
        assert!(ring.put(port, len, data));
        assert_eq!(ring.drain(|port, data| write(&cf8, port, data)), 1);
        assert_eq!(cf8.address(), address, "{port:#x} {len}");
        assert_eq!(*seen.lock(), vec![MachineEvent::Reset; resets], "{port:#x} {len}");
    }
}

/// Two vCPUs that share a lock of the guest's, as in [`Coalesced::drain`], and one more that drains at any time.
#[test]
fn a_ring_that_looks_empty_has_had_all_its_effects() {
    const ROUNDS: u32 = 3000;
    let (ring, register, drains) = (ring(), AtomicU32::new(0), Mutex::new(()));
    let (of_guest, done) = (Mutex::new(()), AtomicBool::new(false));
    let drain = || {
        if !ring.is_empty() {
            let _one = drains.lock();
            ring.drain(|_, data| {
                thread::yield_now();
                register.store(u32::from_le_bytes(data.try_into().unwrap()), Ordering::Relaxed);
            });
        }
    };
    thread::scope(|scope| {
        let vcpus: Vec<_> = (1..=2)
            .map(|vcpu| {
                let (ring, register, of_guest) = (&ring, &register, &of_guest);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let value = vcpu << 24 | round;
                        let _lock = of_guest.lock();
                        while !ring.put(0xcf8, 4, u64::from(value)) {
                            drain();
                        }
                        // Until the third has begun to take it out, in many of the rounds.
                        thread::yield_now();
                        drain();
                        assert_eq!(register.load(Ordering::Relaxed), value);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drain();
            }
        });
        let ended: Vec<_> = vcpus.into_iter().map(|vcpu| vcpu.join().is_ok()).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(ended, [true, true]);
    });
}
