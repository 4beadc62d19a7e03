//! What becomes of BARs that are placed, and what is left behind when calls fail.

mod failing;
mod read_only;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::function::pieces::{Backing, Reason};
use crate::function::test_support::report;
use crate::host::{BarRange, Description};
use failing::{Host, Vmm};

const BASE: u64 = 0xc000_0000;
/// A second page that takes no call of its own.
const TRAPPED: Backing = Backing::Trapped(Reason::Asked);

/// BARs, and where they go; nowhere while decoding is off.
type Bases<'a> = &'a [(u8, Option<u64>)];

struct Guest {
    vmm: Arc<Vmm>,
    space: AddressSpace,
    functions: [(OwnerId, Arc<Host>); 2],
}

fn piece(bar: u8, offset: u64, len: u64, backing: Backing) -> Piece {
    Piece { range: BarRange { bar, offset, len }, backing }
}

impl Guest {
    /// Two functions, each with a BAR 0 of four pages of which the second is read-only, and a small BAR 1.
    fn new() -> Guest {
        Guest::with(Backing::ReadOnly(Reason::MsixTable))
    }

    /// The same, with another second page.
    fn with(second: Backing) -> Guest {
        let vmm = Arc::new(Vmm::default());
        let space = AddressSpace::new(vmm.clone());
        let windows = Arc::new(Windows { memory: vec![BASE..BASE + 0x100_0000], io: vec![] });
        let pieces = vec![
            piece(0, 0, 0x1000, Backing::Mapped),
            piece(0, 0x1000, 0x1000, second),
            piece(0, 0x2000, 0x2000, Backing::Mapped),
            piece(1, 0, 0x100, Backing::Mapped),
        ];
        let functions = ["a", "b"].map(|tag| {
            let host = Arc::new(Host {
                name: tag.into(),
                tag,
                vmm: vmm.clone(),
                description: Description::default(),
                report: report(),
                there: AtomicBool::new(true),
            });
            let slot = Slot::from_requester_id(0x40);
            let is_read = |piece: &&Piece| piece.backing.is_read_only();
            let pages = pieces.iter().filter(is_read).map(|p| ReadOnlyPages::new(p.range).unwrap()).collect();
            (space.add(host.clone(), vmm.clone(), slot, pieces.clone(), pages, windows.clone()), host)
        });
        Guest { vmm, space, functions }
    }

    fn place(&self, function: usize, bases: Bases<'_>) {
        let size = |bar: u8| if bar == 0 { 0x4000 } else { 0x100 };
        let place = |(bar, base): &(u8, Option<u64>)| Placement {
            bar: *bar,
            space: Space::Memory,
            size: size(*bar),
            base: base.map(|offset| BASE + offset),
        };
        let moves: Vec<Placement> = bases.iter().map(place).collect();
        self.space.place(self.functions[function].0, &moves);
    }

    fn mapped(&self) -> Vec<(u64, &'static str, u8)> {
        let book = self.vmm.0.lock();
        book.mapped.iter().map(|(at, (tag, range))| (at - BASE, *tag, range.bar)).collect()
    }

    fn trapped(&self) -> Vec<(u64, u64)> {
        self.vmm.0.lock().trapped.values().map(|r| (r.start - BASE, r.end - BASE)).collect()
    }

    fn reason(&self, function: usize, bar: u8) -> Backing {
        self.space.pieces(self.functions[function].0).iter().find(|p| p.range.bar == bar).unwrap().backing
    }

    /// What is mapped is where the function's BAR is or could not be unmapped.
    fn check(&self) {
        let state = self.space.state.lock();
        let book = self.vmm.0.lock();
        let of_functions =
            self.functions.iter().filter_map(|(id, _)| state.owners.get(id)).flat_map(|o| o.mappings());
        let known: BTreeMap<u64, u64> =
            state.stuck.iter().chain(of_functions).map(|m| (m.guest, m.range.len)).collect();
        assert_eq!(known, book.reached(), "no mapping that nobody knows of, and none that is not there");
    }

    /// What the guest reads without an exit.
    fn read(&self) -> Vec<(u64, u64)> {
        self.vmm.0.lock().read.iter().map(|(at, len)| (at - BASE, *len)).collect()
    }

    /// What a guest may do in some order: places, a move, a swap, a neighbour in a page, decoding off, and removal.
    fn play(&self) {
        let steps: [(usize, Bases<'_>); 8] = [
            (0, &[(0, Some(0)), (1, Some(0x8000))]),
            (1, &[(0, Some(0x4000)), (1, Some(0x8800))]),
            (0, &[(0, Some(0x10000))]),
            (1, &[(0, Some(0))]),
            (1, &[(0, Some(0x10000)), (1, Some(0x9000))]),
            (0, &[(0, None), (1, None)]),
            (0, &[(0, Some(0x20000)), (1, Some(0x9100))]),
            (1, &[(0, None)]),
        ];
        for (function, bases) in steps {
            self.place(function, bases);
            self.check();
        }
        for (id, _) in &self.functions {
            self.space.remove(*id);
            self.check();
        }
    }
}

#[test]
fn bars_are_mapped_by_pieces_and_small_ones_with_their_page() {
    let guest = Guest::new();
    guest.place(0, &[(0, Some(0)), (1, Some(0x8000))]);
    assert_eq!(guest.mapped(), [(0, "a", 0), (0x2000, "a", 0), (0x8000, "a", 1)]);
    assert_eq!(guest.trapped(), [(0x1000, 0x2000)]);
    assert_eq!(guest.vmm.0.lock().mapped[&(BASE + 0x8000)].1.len, 0x1000);

    guest.place(1, &[(1, Some(0x8100))]);
    assert_eq!(guest.mapped().len(), 2, "two in one page are trapped");
    assert_eq!(guest.trapped(), [(0x1000, 0x2000), (0x8000, 0x8100), (0x8100, 0x8200)]);
    assert_eq!(guest.reason(0, 1), Backing::Trapped(Reason::SubPage));

    guest.place(1, &[(1, None)]);
    assert_eq!(guest.mapped()[2], (0x8000, "a", 1));
    assert_eq!(guest.reason(0, 1), Backing::Mapped);
    guest.place(0, &[(1, Some(0x8100))]);
    assert_eq!(guest.reason(0, 1), Backing::Trapped(Reason::SubPage), "not at the start of its page");
}

#[test]
fn whichever_call_fails_nothing_is_left() {
    let calls = {
        let guest = Guest::new();
        guest.play();
        guest.vmm.0.lock().calls
    };
    assert!(calls > 40, "{calls}");
    for fail in 0..calls {
        for width in [1, 2, 3] {
            let guest = Guest::new();
            guest.vmm.0.lock().fail = Some(fail..fail + width);
            guest.play();
            // What the last calls left is taken with the next changes.
            (0..3).for_each(|_| guest.place(0, &[]));
            let book = guest.vmm.0.lock();
            assert!(book.is_empty(), "call {fail} and {width} in all");
            drop(book);
            let hosts = guest.functions.each_ref().map(|(_, host)| Arc::strong_count(host));
            assert_eq!(hosts, [1, 1], "nobody holds a function that left");
        }
    }
}

#[test]
fn a_host_stays_while_the_guest_reaches_it() {
    let guest = Guest::new();
    guest.place(0, &[(0, Some(0)), (1, Some(0x8000))]);
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..usize::MAX);
    guest.space.remove(guest.functions[0].0);
    guest.check();
    assert_eq!(guest.mapped().len(), 3);
    assert_eq!(Arc::strong_count(&guest.functions[0].1), 4, "one for each mapping");

    guest.vmm.0.lock().fail = None;
    guest.place(1, &[]);
    assert!(guest.vmm.0.lock().is_empty());
    assert_eq!(Arc::strong_count(&guest.functions[0].1), 1);
}

#[test]
fn what_is_stuck_is_not_mapped_over() {
    let guest = Guest::with(TRAPPED);
    guest.place(0, &[(0, Some(0))]);
    // Both unmaps fail, and with the next change again.
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..from + 2);
    guest.place(0, &[(0, None)]);
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..from + 2);
    guest.place(1, &[(0, Some(0))]);
    assert_eq!(guest.mapped(), [(0, "a", 0), (0x2000, "a", 0)]);
    assert_eq!(guest.reason(1, 0), Backing::Trapped(Reason::Failed));
    guest.place(1, &[(0, None)]);
    assert!(guest.vmm.0.lock().is_empty());
}

/// The address space cannot know which side of a mapping failed to go: whatever is left, every part of the BAR is
/// answered, and it is mapped again once the rest is gone.
#[test]
fn what_is_unmapped_in_part_is_trapped_when_its_bar_comes_back_there() {
    for [hypervisor, iommu] in [[true, false], [false, true], [true, true]] {
        let guest = Guest::with(TRAPPED);
        let fail = |failing: bool| {
            let mut book = guest.vmm.0.lock();
            let from = book.calls;
            // Two mappings.
            book.fail = (failing && hypervisor).then_some(from..from + 2);
            book.peers_stay = failing && iommu;
        };
        guest.place(0, &[(0, Some(0))]);
        fail(true);
        guest.place(0, &[(0, None)]);
        guest.check();
        fail(true);
        guest.place(0, &[(0, Some(0))]);
        guest.check();
        assert_eq!(guest.reason(0, 0), Backing::Trapped(Reason::Failed));
        assert_eq!(guest.trapped(), [(0, 0x1000), (0x1000, 0x2000), (0x2000, 0x4000)]);
        assert_eq!(guest.mapped().len(), if hypervisor { 2 } else { 0 });

        fail(false);
        for base in [None, Some(0)] {
            guest.place(0, &[(0, base)]);
            guest.check();
        }
        assert_eq!(guest.reason(0, 0), Backing::Mapped);
        assert_eq!((guest.mapped().len(), guest.trapped()), (2, vec![(0x1000, 0x2000)]));
        guest.space.remove(guest.functions[0].0);
        assert!(guest.vmm.0.lock().is_empty());
    }
}

#[test]
fn what_is_stuck_goes_when_its_function_does_not_answer() {
    let guest = Guest::with(TRAPPED);
    guest.place(0, &[(0, Some(0))]);
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..from + 2);
    guest.place(0, &[(0, None)]);
    assert!(!guest.space.withdraw_unanswered());
    assert_eq!(guest.mapped().len(), 2, "it answers");
    guest.functions[0].1.there.store(false, Ordering::Relaxed);
    assert!(guest.space.withdraw_unanswered());
    assert_eq!(guest.mapped(), []);
    assert!(!guest.space.withdraw_unanswered(), "once");
}

#[test]
fn functions_that_do_not_answer_are_trapped_until_they_are_enabled_again() {
    let guest = Guest::new();
    guest.place(0, &[(0, Some(0)), (1, Some(0x8000))]);
    guest.place(1, &[(0, Some(0x4000))]);
    assert!(!guest.space.withdraw_unanswered());
    guest.functions[0].1.there.store(false, Ordering::Relaxed);
    assert!(guest.space.withdraw_unanswered());
    assert_eq!(guest.mapped(), [(0x4000, "b", 0), (0x6000, "b", 0)]);
    assert_eq!(guest.trapped()[..4], [(0, 0x1000), (0x1000, 0x2000), (0x2000, 0x4000), (0x5000, 0x6000)]);
    assert_eq!(guest.reason(0, 0), Backing::Trapped(Reason::Unanswered));
    assert!(!guest.space.withdraw_unanswered(), "once");

    guest.functions[0].1.there.store(true, Ordering::Relaxed);
    guest.place(0, &[(0, None), (1, None)]);
    guest.place(0, &[(0, Some(0)), (1, Some(0x8000))]);
    assert_eq!((guest.mapped().len(), guest.reason(0, 0)), (5, Backing::Mapped));
}

#[test]
fn windows_that_change_move_what_is_mapped() {
    let guest = Guest::new();
    guest.place(0, &[(0, Some(0)), (1, Some(0x8000))]);
    let windows = |range| Arc::new(Windows { memory: vec![range], io: vec![] });
    guest.space.set_windows(guest.functions[0].0, windows(BASE + 0x8000..BASE + 0x9000));
    assert_eq!(guest.mapped(), [(0x8000, "a", 1)]);
    assert_eq!(guest.trapped(), []);
    guest.space.set_windows(guest.functions[0].0, windows(BASE..BASE + 0x8800));
    assert_eq!(guest.mapped(), [(0, "a", 0), (0x2000, "a", 0)]);
    assert_eq!(guest.reason(0, 1), Backing::Trapped(Reason::SubPage), "its page is not all inside");
    guest.check();
}
