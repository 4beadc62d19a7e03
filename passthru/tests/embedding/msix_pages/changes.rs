//! What the guest reads after its function moved, slept, was out of reach, or was followed by another one, while a vector
//! pends or comes to pend.

use super::*;

const ELSEWHERE: u64 = 0xc040_0000;
const COMMAND: u16 = 0x04;
const TABLE: u64 = BAR4 + 3 * 16;

impl Guest {
    /// The function signals a vector, also where its registers answer nothing.
    fn raise(&self, vector: u32) {
        self.function.host().bar_write(0, TRIGGER - BAR0, &vector.to_le_bytes()).unwrap();
        self.vmm.turn();
    }

    fn windows(&self, memory: &[std::ops::Range<u64>]) {
        self.function.set_windows(Arc::new(Windows { memory: memory.to_vec(), io: vec![] }));
    }

    /// Vectors 3 and 4 are armed and masked, and 3 pends.
    fn with_pending() -> Guest {
        let guest = Guest::new();
        for vector in [3, 4] {
            guest.arm(vector);
            guest.mask(vector, true);
        }
        guest.raise(3);
        guest
    }

    /// Both vectors' bits are right, here and where a read exits, and each is delivered once when it is unmasked.
    fn expect(&self, at: u64, pending: u8, when: &str) {
        assert_eq!(self.readable(at), BOTH, "{when}");
        let mut bits = [0xff; 4];
        self.vmm.read(at + PENDING, &mut bits);
        assert_eq!(bits, [pending, 0, 0, 0], "{when}");
        for vector in [3, 4] {
            let entry = 0xfee0_0000 | (0x40 + u128::from(vector)) << 64 | MASKED;
            assert_eq!(self.entry(at, vector), entry, "{when}: entry {vector}");
        }
        self.check(at, when);
    }
}

/// Reads where nothing answers.
fn expect_nothing(guest: &Guest, at: u64, when: &str) {
    assert_eq!(guest.vmm.book().readable.len(), 0, "{when}");
    for offset in [0, 12, PENDING] {
        let mut data = [0; 4];
        guest.vmm.read(at + offset, &mut data);
        assert_eq!(data, [0xff; 4], "{when}: {offset:#x}");
    }
}

#[test]
fn bits_stay_and_come_while_the_structures_are_out_of_reach() {
    type Change = (&'static str, fn(&Guest), fn(&Guest));
    let changes: [Change; 4] = [
        ("decoding off", |guest| guest.config(COMMAND, &[4, 0]), |guest| guest.config(COMMAND, &[6, 0])),
        ("asleep", |guest| guest.config(POWER, &[3, 0]), |guest| guest.config(POWER, &[0, 0])),
        (
            "the BAR outside the windows",
            |guest| guest.function.assign(4, 0),
            |guest| guest.function.assign(4, BAR4),
        ),
        ("the window closed", |guest| guest.windows(&[]), |guest| guest.windows(&[BAR0..0xe000_0000])),
    ];
    for (what, off, on) in changes {
        let guest = Guest::with_pending();
        off(&guest);
        expect_nothing(&guest, BAR4, what);
        guest.write(3 * 16, &[0x11; 8]);
        guest.raise(4);
        on(&guest);
        guest.expect(BAR4, 1 << 3 | 1 << 4, what);
        for vector in [3, 4] {
            guest.mask(vector, false);
            assert_eq!(guest.vmm.delivered().len(), 1, "{what}: {vector}");
        }
        assert_eq!(guest.pending(), [0; 0], "{what}");
        guest.check(BAR4, what);
    }
}

#[test]
fn a_bit_moves_with_its_bar() {
    let guest = Guest::with_pending();
    for at in [ELSEWHERE, BAR4] {
        guest.function.assign(4, at);
        guest.expect(at, 1 << 3, "moved");
    }
    guest.function.assign(4, ELSEWHERE);
    expect_only(&guest, ELSEWHERE);
    guest.raise(4);
    guest.expect(ELSEWHERE, 1 << 3 | 1 << 4, "signalled there");
}

/// Where the BAR was before, nothing is.
fn expect_only(guest: &Guest, at: u64) {
    let mut data = [0; 4];
    guest.vmm.read(BAR4, &mut data);
    assert_eq!((guest.readable(at), data), (BOTH.to_vec(), [0xff; 4]));
}

/// The window of a port above is closed, moved, and opened again.
#[test]
fn values_follow_the_windows() {
    let guest = Guest::with_pending();
    guest.windows(&[BAR0..BAR0 + 0x1000, ELSEWHERE..ELSEWHERE + 0x10_0000]);
    expect_nothing(&guest, BAR4, "the window is somewhere else");
    // The guest moves the BAR after it, and writes there.
    guest.function.assign(4, ELSEWHERE);
    guest.expect(ELSEWHERE, 1 << 3, "moved after its window");
    expect_only(&guest, ELSEWHERE);
    guest.vmm.write(ELSEWHERE + 3 * 16 + 8, &[0x55, 0, 0, 0]);
    guest.raise(4);
    let entry = 0xfee0_0000 | 0x55 << 64 | MASKED;
    assert_eq!(guest.entry(ELSEWHERE, 3), entry);
    guest.windows(&[BAR0..0xc030_0000]);
    expect_nothing(&guest, ELSEWHERE, "the window is back, the BAR is not");
    guest.vmm.write(ELSEWHERE + 3 * 16 + 8, &[0x66, 0, 0, 0]);
    guest.function.assign(4, BAR4);
    assert_eq!((guest.entry(BAR4, 3), guest.pending()), (entry, vec![3, 4]));
    guest.check(BAR4, "back");
    // One that holds the BAR as before does not disturb it.
    guest.vmm.book().unmapped.clear();
    guest.windows(&[BAR0..0xc050_0000]);
    assert_eq!(guest.vmm.book().unmapped, []);
    assert_eq!(guest.pending(), [3, 4]);
}

#[test]
fn bits_go_when_msix_is_turned_off_whether_anybody_reads_them_or_not() {
    let off_and_on = |guest: &Guest| {
        guest.config(MSIX_CONTROL, &[0]);
        guest.config(MSIX_CONTROL, &ENABLED);
    };
    let guest = Guest::with_pending();
    off_and_on(&guest);
    guest.expect(BAR4, 0, "off and on");

    let hidden = Guest::with_pending();
    hidden.config(COMMAND, &[4, 0]);
    off_and_on(&hidden);
    hidden.config(COMMAND, &[6, 0]);
    hidden.expect(BAR4, 0, "off and on with decoding off");

    // What is asked for meanwhile is done when the function wakes.
    let asleep = Guest::with_pending();
    asleep.config(POWER, &[3, 0]);
    asleep.config(MSIX_CONTROL, &[0]);
    asleep.config(POWER, &[0, 0]);
    asleep.expect(BAR4, 0, "turned off in D3hot");
    asleep.config(MSIX_CONTROL, &ENABLED);
    asleep.expect(BAR4, 0, "and on again");
    asleep.mask(3, false);
    assert_eq!(asleep.vmm.delivered().len(), 0);
}

#[test]
fn a_live_vector_that_is_masked_reads_so() {
    let guest = Guest::new();
    guest.arm(3);
    for round in 0..3 {
        for masked in [true, false] {
            guest.mask(3, masked);
            let (mut here, mut trapped) = ([0xff; 4], [0xff; 4]);
            guest.vmm.read(TABLE + 12, &mut here);
            guest.vmm.read_trapped(TABLE + 12, &mut trapped);
            assert_eq!((here, trapped), ([u8::from(masked), 0, 0, 0], here), "round {round}");
        }
    }
    // The function mask is none of the entry's.
    guest.config(MSIX_CONTROL, &FUNCTION_MASKED);
    assert_eq!(guest.entry(BAR4, 3) >> 96, 0);
}

#[test]
fn nothing_is_left_for_the_function_that_is_plugged_next() {
    let vmm = Vmm::new();
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let plugged = || Guest::plugged(vmm.clone(), space.clone(), Shape::default());
    let first = plugged();
    first.arm(3);
    first.mask(3, true);
    first.raise(3);
    first.arm(4);
    assert_eq!((first.pending(), first.entry(BAR4, 4) >> 96), (vec![3], 0));
    drop(first);
    assert!(vmm.is_empty());
    let mut data = [0; 4];
    for offset in [0, 12, PENDING] {
        vmm.read(BAR4 + offset, &mut data);
        assert_eq!(data, [0xff; 4], "unplugged: {offset:#x}");
    }

    let second = plugged();
    assert_eq!((second.readable(BAR4), second.pending()), (BOTH.to_vec(), vec![]));
    assert!((0..VECTORS).all(|vector| second.entry(BAR4, vector) == MASKED));
    second.check(BAR4, "plugged next");
}
