//! A host and a VMM whose calls can be made to fail, and what is left behind then.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::function::pieces::{Backing, Reason};
use crate::function::test_support::report;
use crate::host::*;
use crate::ports::{Access, DmaRegion, PortError, PortOperation};

/// What the hypervisor has: mappings and traps by address. Calls are numbered, and one of them fails, or all from one on.
#[derive(Default)]
struct Book {
    mapped: BTreeMap<u64, (&'static str, BarRange)>,
    trapped: BTreeMap<u64, Range<u64>>,
    calls: usize,
    fail: Option<Range<usize>>,
}

impl Book {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match &self.fail {
            Some(fail) if fail.contains(&(self.calls - 1)) => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.mapped.is_empty() && self.trapped.is_empty()
    }
}

#[derive(Default)]
struct Vmm(Mutex<Book>);

impl MemoryPort for Vmm {
    unsafe fn map(&self, guest: u64, _: *mut u8, len: u64, _: Access) -> Result<(), PortError> {
        Err(PortOperation::Map { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        Err(PortOperation::Unmap { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut book = self.0.lock();
        book.call().map_err(PortOperation::Trap.failed())?;
        let taken = |trap: &Trap| {
            let mut old = book.trapped.values().filter(|old| remove.iter().all(|(_, gone)| gone != *old));
            old.any(|old| old.start < trap.range.end && trap.range.start < old.end)
        };
        if add.iter().any(taken) {
            return Err(PortOperation::Trap.failed()(io::ErrorKind::AddrInUse));
        }
        for (_, range) in remove {
            assert_eq!(
                book.trapped.remove(&range.start).as_ref(),
                Some(range),
                "only what is trapped is taken away"
            );
        }
        book.trapped.extend(add.iter().map(|trap| (trap.range.start, trap.range.clone())));
        Ok(())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        Vec::new()
    }
}

impl BarAccess for Vmm {
    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) {}
}

struct Host {
    name: Arc<str>,
    tag: &'static str,
    vmm: Arc<Vmm>,
    description: Description,
    report: Report,
    there: AtomicBool,
}

impl Host {
    fn error<E: Into<Cause>>(&self, operation: Operation) -> impl FnOnce(E) -> HostError + use<E> {
        let device = self.name.clone();
        move |source| HostError { device, operation, source: source.into() }
    }
}

impl HostFunction for Host {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, _: u16, data: &mut [u8]) -> Result<(), HostError> {
        data.fill(if self.there.load(Ordering::Relaxed) { 0x12 } else { 0xff });
        Ok(())
    }

    fn config_write(&self, _: u16, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn bar_read(&self, _: u8, _: u64, _: &mut [u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let mut book = self.vmm.0.lock();
        book.call().map_err(self.error(Operation::Map { range, guest }))?;
        assert_eq!((guest | range.len | range.offset) % 0x1000, 0, "whole pages");
        let overlaps =
            |(at, (_, old)): (&u64, &(_, BarRange))| *at < guest + range.len && guest < at + old.len;
        assert!(!book.mapped.iter().any(overlaps), "{range} at {guest:#x} over another mapping");
        book.mapped.insert(guest, (self.tag, range));
        Ok(())
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let mut book = self.vmm.0.lock();
        book.call().map_err(self.error(Operation::Unmap { range, guest }))?;
        assert_eq!(book.mapped.remove(&guest), Some((self.tag, range)), "only what is mapped is taken away");
        Ok(())
    }

    fn set_vectors(&self, _: MessageKind, _: u16, _: &[VectorChange]) -> Vec<HostError> {
        Vec::new()
    }

    fn disable_vectors(&self, _: MessageKind) -> Result<(), HostError> {
        Ok(())
    }

    fn is_pending(&self, _: MessageKind, _: u16) -> bool {
        false
    }

    fn set_intx(&self, _: bool) -> Result<(), HostError> {
        Ok(())
    }

    fn listen(&self, _: Listener) -> Result<(), HostError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        Ok(())
    }
}

const BASE: u64 = 0xc000_0000;

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
    /// Two functions, each with a BAR 0 of four pages of which the second is trapped, and a small BAR 1.
    fn new() -> Guest {
        let vmm = Arc::new(Vmm::default());
        let space = AddressSpace::new(vmm.clone());
        let windows = Arc::new(Windows { memory: vec![BASE..BASE + 0x100_0000], io: vec![] });
        let pieces = vec![
            piece(0, 0, 0x1000, Backing::Mapped),
            piece(0, 0x1000, 0x1000, Backing::Trapped(Reason::MsixTable)),
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
            (space.add(host.clone(), vmm.clone(), slot, pieces.clone(), windows.clone()), host)
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

    /// No address is mapped and trapped, and what is mapped is where the function's BAR is or could not be unmapped.
    fn check(&self) {
        let state = self.space.state.lock();
        let book = self.vmm.0.lock();
        let mut known: Vec<(u64, BarRange)> = state.stuck.iter().map(|s| (s.guest, s.range)).collect();
        for (id, _) in &self.functions {
            known.extend(
                state.owners.get(id).iter().flat_map(|o| o.mappings()).map(|(range, at)| (*at, *range)),
            );
        }
        known.sort_unstable();
        let there: Vec<(u64, BarRange)> = book.mapped.iter().map(|(at, (_, range))| (*at, *range)).collect();
        assert_eq!(known, there, "no mapping that nobody knows of, and none that is not there");
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
fn what_is_stuck_is_not_mapped_over_and_is_taken_back_where_it_is() {
    let guest = Guest::new();
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

    guest.place(0, &[(0, Some(0))]);
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..from + 2);
    guest.place(0, &[(0, None)]);
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from..from + 2);
    guest.place(0, &[(0, Some(0))]);
    assert_eq!(guest.reason(0, 0), Backing::Mapped);
    guest.check();
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
