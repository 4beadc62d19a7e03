//! The MSI-X table and pending bits where the guest reads them without an exit: always what a read that exits gives.

mod changes;
mod order;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::vmm::Vmm;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::function::pieces::{Backing, Reason};
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

const BAR0: u64 = 0xc000_0000;
const BAR4: u64 = 0xc020_0000;
const TRIGGER: u64 = BAR0 + 0x48;
/// Control register of MSI-X, its high byte.
const MSIX_CONTROL: u16 = 0x73;
const ENABLED: [u8; 1] = [0x80];
const FUNCTION_MASKED: [u8; 1] = [0xc0];
const DEVICE_CONTROL: u16 = 0x88;
const FLR: [u8; 2] = [0x00, 0x80];
const POWER: u16 = 0x44;
const VECTORS: u64 = 256;
const PENDING: u64 = 0x8000;

struct Guest {
    vmm: Arc<Vmm>,
    function: Attached,
}

impl Guest {
    fn new() -> Guest {
        Guest::shaped(Shape::default())
    }

    fn shaped(shape: Shape) -> Guest {
        let vmm = Vmm::new();
        let space = Arc::new(AddressSpace::new(vmm.clone()));
        Guest::plugged(vmm, space, shape)
    }

    fn plugged(vmm: Arc<Vmm>, space: Arc<AddressSpace>, shape: Shape) -> Guest {
        let slot = Slot::new(0, 8, 0).unwrap();
        let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
        let windows = Windows { memory: vec![BAR0..0xe000_0000], io: vec![] };
        let function = Attached::new(Fresh::one(host).unwrap(), slot, shape, space, Arc::new(windows));
        let guest = Guest { vmm, function: function.unwrap() };
        guest.start();
        guest
    }

    /// Addresses, decoding and bus mastering, and MSI-X.
    fn start(&self) {
        self.function.assign(0, BAR0);
        self.function.assign(4, BAR4);
        self.config(0x04, &[0x6, 0]);
        self.config(MSIX_CONTROL, &ENABLED);
    }

    fn config(&self, offset: u16, data: &[u8]) {
        self.function.config().config_write(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.vmm.write(BAR4 + offset, data);
    }

    fn arm(&self, vector: u64) {
        self.write(vector * 16, &0xfee0_0000u64.to_le_bytes());
        self.write(vector * 16 + 8, &(0x40 + vector as u32).to_le_bytes());
        self.mask(vector, false);
    }

    fn mask(&self, vector: u64, masked: bool) {
        self.write(vector * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    fn trigger(&self, vector: u32) {
        self.vmm.write(TRIGGER, &vector.to_le_bytes());
    }

    /// Where in BAR 4, which is at `at` now, the guest reads without an exit.
    fn readable(&self, at: u64) -> Vec<(u64, u64)> {
        self.vmm.book().readable.keys().map(|(start, len)| (start - at, *len)).collect()
    }

    /// A table entry as the guest reads it: without an exit, in `BAR4` at `at`.
    fn entry(&self, at: u64, vector: u64) -> u128 {
        let mut entry = [0; 16];
        self.vmm.read(at + vector * 16, &mut entry);
        u128::from_le_bytes(entry)
    }

    /// All that the guest reads there without an exit is what a read gives that exits.
    fn check(&self, at: u64, when: &str) {
        for offset in (0..VECTORS * 16).chain(PENDING..PENDING + VECTORS / 8).step_by(4) {
            let (mut here, mut trapped) = ([0; 4], [0; 4]);
            self.vmm.read(at + offset, &mut here);
            self.vmm.read_trapped(at + offset, &mut trapped);
            assert_eq!(here, trapped, "{when}: {offset:#x}");
        }
    }

    /// Vectors that pend, after the event loop has turned.
    fn pending(&self) -> Vec<u64> {
        self.vmm.turn();
        let mut bits = [0; 32];
        self.vmm.read(BAR4 + PENDING, &mut bits);
        (0..VECTORS).filter(|vector| bits[(vector / 8) as usize] >> (vector % 8) & 1 != 0).collect()
    }
}

/// An entry that was never written.
const MASKED: u128 = 1 << 96;
const BOTH: [(u64, u64); 2] = [(0, 0x1000), (PENDING, 0x1000)];

#[test]
fn the_table_is_there_as_it_was_written() {
    let guest = Guest::new();
    assert_eq!(guest.readable(BAR4), BOTH);
    guest.check(BAR4, "at the start");
    let mut control = [0; 4];
    guest.vmm.read(BAR4 + 12, &mut control);
    assert_eq!(control, [1, 0, 0, 0]);
    for (offset, data) in [
        (0x00, &[0x11][..]),
        (0x03, &[0x12]),
        (0x12, &[0x13, 0x14]),
        (0x15, &[0x15, 0x16]),
        (0x24, &[1, 2, 3, 4]),
        (0x2c, &[0; 4]),
        (0x2c, &[1, 0, 0, 0]),
        (0x36, &[5, 6, 7, 8]),
        (0x40, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (0x48, &[1, 2, 3, 4, 0, 0, 0, 0]),
        (0x5d, &[9; 8]),
        (0xff8, &[1, 2, 3, 4, 1, 0, 0, 0]),
        (0xffc, &[0xfe; 8]),
    ] {
        guest.write(offset, data);
        guest.check(BAR4, &format!("{data:x?} at {offset:#x}"));
    }
    let mut random = 1u64;
    for _ in 0..300 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (offset, len) = (random >> 32 & 0xfff, 1 << (random >> 60 & 3));
        guest.write(offset, &random.to_le_bytes()[..len]);
    }
    guest.check(BAR4, "after many writes");
}

/// What is beside the pending bits reads zero, whatever the function has there; what the guest writes reaches it.
#[test]
fn the_rest_of_a_page_reads_zero_and_is_written() {
    let guest = Guest::new();
    guest.write(PENDING, &[0xff; 8]);
    guest.write(PENDING + 0x800, &[1, 2, 3, 4]);
    for (offset, trapped) in [(0, [0; 4]), (0x20, [0; 4]), (0x800, [1, 2, 3, 4])] {
        let (mut here, mut there) = ([0xff; 4], [0xff; 4]);
        guest.vmm.read(BAR4 + PENDING + offset, &mut here);
        guest.vmm.read_trapped(BAR4 + PENDING + offset, &mut there);
        assert_eq!((here, there), ([0; 4], trapped), "{offset:#x}");
    }
}

#[test]
fn pending_bits_follow_the_vectors() {
    let guest = Guest::new();
    for vector in [2, 70, 255] {
        guest.arm(vector);
        guest.mask(vector, true);
        guest.trigger(vector as u32);
    }
    assert_eq!(guest.pending(), [2, 70, 255]);
    guest.check(BAR4, "pending");
    guest.mask(70, false);
    assert_eq!((guest.pending(), guest.vmm.delivered().len()), (vec![2, 255], 1));
    guest.trigger(70);
    assert_eq!((guest.pending(), guest.vmm.delivered().len()), (vec![2, 255], 1), "delivered, not pending");

    guest.config(MSIX_CONTROL, &FUNCTION_MASKED);
    guest.trigger(70);
    assert_eq!(guest.pending(), [2, 70, 255]);
    guest.config(MSIX_CONTROL, &ENABLED);
    assert_eq!((guest.pending(), guest.vmm.delivered().len()), (vec![2, 255], 1));

    guest.config(MSIX_CONTROL, &[0]);
    assert_eq!(guest.pending(), [0; 0], "turned off");
    guest.check(BAR4, "turned off");
    guest.config(MSIX_CONTROL, &ENABLED);
    assert_eq!(guest.pending(), [0; 0], "never armed since");
    guest.mask(2, false);
    guest.mask(2, true);
    guest.trigger(2);
    assert_eq!(guest.pending(), [2]);
    guest.check(BAR4, "masked again");
}

/// Pending bits of MSI are in configuration space.
#[test]
fn msi_sets_no_bit_there() {
    let guest = Guest::new();
    guest.config(MSIX_CONTROL, &[0]);
    guest.config(0x54, &0xfee0_0000u32.to_le_bytes());
    guest.config(0x52, &[0x31, 0]);
    guest.config(0x60, &[0x80]);
    guest.trigger(7);
    assert_eq!(guest.pending(), [0; 0]);
    let mut bits = [0; 4];
    guest.function.config().config_read(0x64, &mut bits);
    assert_eq!(bits, [0x80, 0, 0, 0]);
    assert_eq!(guest.pending(), [0; 0], "also when somebody has asked");
}

#[test]
fn they_move_with_the_bar_and_go_when_it_answers_nothing() {
    const ELSEWHERE: u64 = 0xc040_0000;
    let guest = Guest::new();
    guest.arm(3);
    guest.mask(3, true);
    guest.trigger(3);
    guest.vmm.turn();
    guest.function.assign(4, ELSEWHERE);
    assert_eq!(guest.readable(ELSEWHERE), BOTH);
    guest.check(ELSEWHERE, "moved");
    for (what, off, on) in
        [("decoding off", (0x04, [0x4, 0]), (0x04, [0x6, 0])), ("asleep", (POWER, [3, 0]), (POWER, [0, 0]))]
    {
        guest.config(off.0, &off.1);
        assert_eq!(guest.readable(ELSEWHERE), [], "{what}");
        let mut data = [0; 4];
        guest.vmm.read(ELSEWHERE, &mut data);
        assert_eq!(data, [0xff; 4], "{what}");
        guest.config(on.0, &on.1);
        assert_eq!(guest.readable(ELSEWHERE), BOTH);
        guest.check(ELSEWHERE, what);
    }
    let mut bits = [0; 4];
    guest.vmm.read(ELSEWHERE + PENDING, &mut bits);
    assert_eq!(bits, [1 << 3, 0, 0, 0], "pending all the time");
}

#[test]
fn after_a_reset_nothing_of_before_is_read() {
    for by_guest in [false, true] {
        let guest = Guest::new();
        guest.arm(3);
        guest.mask(3, true);
        guest.trigger(3);
        guest.vmm.turn();
        if by_guest {
            guest.config(DEVICE_CONTROL, &FLR);
        } else {
            guest.function.reset();
        }
        assert_eq!(guest.readable(BAR4), []);
        let mut id = [0xff; 2];
        while id == [0xff; 2] {
            guest.function.config().config_read(0, &mut id);
            thread::yield_now();
        }
        guest.start();
        assert_eq!((guest.readable(BAR4), guest.pending()), (BOTH.to_vec(), vec![]));
        guest.check(BAR4, "reset");
        assert_eq!(guest.entry(BAR4, 3), MASKED, "masked, and nothing else");
    }
}

#[test]
fn they_are_trapped_where_that_is_asked_for() {
    let guest = Guest::shaped(Shape { trap_msix: true, ..Shape::default() });
    assert_eq!(guest.readable(BAR4), []);
    guest.arm(3);
    guest.mask(3, true);
    guest.trigger(3);
    assert_eq!(guest.pending(), [3]);
    let reasons: Vec<Backing> = guest.function.pieces().iter().map(|piece| piece.backing).collect();
    assert_eq!(reasons.iter().filter(|backing| **backing == Backing::Trapped(Reason::Asked)).count(), 2);
}

/// Without the event loop nobody hears of what a masked vector signals, but who asks.
#[test]
fn without_a_watch_reads_of_pending_bits_exit() {
    let guest = Guest::new();
    guest.arm(3);
    guest.vmm.book().refuse_watches = true;
    let rest = |guest: &Guest| {
        let book = guest.vmm.book();
        (book.mapped.clone(), book.trap_changes)
    };
    let before = rest(&guest);
    guest.vmm.book().unmapped.clear();
    guest.mask(3, true);
    assert_eq!(guest.readable(BAR4), BOTH[..1]);
    assert_eq!(guest.vmm.book().unmapped, [(BAR4 + PENDING, 0x1000)], "other vCPUs use the rest meanwhile");
    assert_eq!(rest(&guest), before);
    guest.check(BAR4, "given up");
    let pieces = guest.function.pieces();
    let pending = pieces.iter().find(|piece| (piece.range.bar, piece.range.offset) == (4, PENDING)).unwrap();
    assert_eq!(pending.backing, Backing::Trapped(Reason::PendingUntold));
    guest.trigger(3);
    assert_eq!(guest.pending(), [3]);
    guest.mask(3, false);
    assert_eq!((guest.pending(), guest.vmm.delivered().len()), (vec![], 1));
    let vmm = guest.vmm.clone();
    drop(guest);
    assert!(vmm.is_empty());
}

#[test]
fn what_cannot_be_mapped_or_unmapped_is_answered_all_the_same() {
    let vmm = {
        let guest = Guest::new();
        guest.config(0x04, &[0x4, 0]);
        guest.vmm.book().refuse_maps = 2;
        guest.config(0x04, &[0x6, 0]);
        assert_eq!(guest.readable(BAR4), BOTH[1..], "the table and its neighbour were refused");
        guest.check(BAR4, "the table trapped");

        guest.vmm.book().keep_readable = true;
        guest.config(0x04, &[0x4, 0]);
        assert_eq!(guest.readable(BAR4), BOTH[1..], "it stays");
        guest.config(0x04, &[0x6, 0]);
        guest.check(BAR4, "with one that stays");
        guest.vmm.book().keep_readable = false;
        guest.config(0x04, &[0x4, 0]);
        assert_eq!(guest.readable(BAR4), []);
        guest.config(0x04, &[0x6, 0]);
        assert_eq!(guest.readable(BAR4), BOTH);
        guest.check(BAR4, "mapped again");
        guest.vmm.clone()
    };
    assert!(vmm.is_empty());
}

/// Signals, masks and the event loop at once. Whatever comes first, in the end the bits are what the vectors are, and while a
/// vector was unmasked by the one who looks its bit is clear.
#[test]
fn bits_are_right_whatever_races() {
    const ROUNDS: u32 = 400;
    let guest = Guest::new();
    let over = AtomicBool::new(false);
    for vector in 0..4 {
        guest.arm(vector);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vector = 0;
            while !over.load(Ordering::Relaxed) {
                guest.trigger(vector % 4);
                vector += 1;
                thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                guest.vmm.turn();
                thread::yield_now();
            }
        });
        for round in 0..ROUNDS {
            let vector = u64::from(round % 4);
            guest.mask(vector, true);
            if round % 16 == 5 {
                guest.config(MSIX_CONTROL, &FUNCTION_MASKED);
                guest.config(MSIX_CONTROL, &ENABLED);
            }
            if round % 32 == 9 {
                guest.config(MSIX_CONTROL, &[0]);
                guest.config(MSIX_CONTROL, &ENABLED);
            }
            if round % 8 < 4 {
                thread::yield_now();
            }
            guest.mask(vector, false);
            let mut bits = [0xff];
            guest.vmm.read(BAR4 + PENDING, &mut bits);
            if bits[0] != 0 {
                over.store(true, Ordering::Relaxed);
            }
            assert_eq!(bits, [0], "all are unmasked in round {round}");
        }
        over.store(true, Ordering::Relaxed);
    });
    guest.vmm.turn();
    guest.check(BAR4, "after the races");
    (0..4).for_each(|vector| guest.mask(vector, true));
    (0..4).for_each(|vector| guest.trigger(vector));
    assert_eq!(guest.pending(), [0, 1, 2, 3]);
}
