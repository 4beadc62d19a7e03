//! Pages of this process in the place of parts of BARs.

use super::*;

fn backing(guest: &Guest, offset: u64) -> Backing {
    let pieces = guest.space.pieces(guest.functions[0].0);
    pieces.iter().find(|p| (p.range.bar, p.range.offset) == (0, offset)).unwrap().backing
}

/// So many calls from now on fail.
fn fail(guest: &Guest, calls: usize) {
    let mut book = guest.vmm.0.lock();
    book.fail = Some(book.calls..book.calls + calls);
}

#[test]
fn they_are_mapped_where_their_bar_answers_and_writes_are_trapped() {
    let guest = Guest::new();
    let there = Backing::ReadOnly(Reason::MsixTable);
    for base in [0, 0x10000] {
        guest.place(0, &[(0, Some(base))]);
        assert_eq!((guest.read(), backing(&guest, 0x1000)), (vec![(base + 0x1000, 0x1000)], there));
        assert_eq!(guest.trapped(), [(base + 0x1000, base + 0x2000)]);
    }
    guest.place(1, &[(0, Some(0x10000))]);
    assert_eq!(guest.read().len(), 1, "nowhere while another BAR is there");
    guest.place(0, &[(0, None)]);
    assert_eq!(guest.read(), [(0x11000, 0x1000)], "the other one's");
    guest.space.remove(guest.functions[1].0);
    assert_eq!(guest.read(), []);
}

#[test]
fn what_cannot_be_mapped_is_trapped_there() {
    let guest = Guest::new();
    // The first part of the BAR is mapped, its second is not.
    let from = guest.vmm.0.lock().calls;
    guest.vmm.0.lock().fail = Some(from + 1..from + 2);
    guest.place(0, &[(0, Some(0))]);
    assert_eq!((guest.read(), backing(&guest, 0x1000)), (vec![], Backing::Trapped(Reason::Failed)));
    assert_eq!((guest.mapped().len(), guest.trapped()), (2, vec![(0x1000, 0x2000)]));
    guest.place(0, &[(0, Some(0x10000))]);
    assert_eq!(guest.read(), [(0x11000, 0x1000)], "tried anew");
}

#[test]
fn they_go_with_what_does_not_answer() {
    let guest = Guest::new();
    guest.place(0, &[(0, Some(0))]);
    guest.functions[0].1.there.store(false, Ordering::Relaxed);
    assert!(guest.space.withdraw_unanswered());
    assert_eq!((guest.read(), backing(&guest, 0x1000)), (vec![], Backing::Trapped(Reason::Unanswered)));
    assert_eq!(guest.trapped().len(), 3);
}

#[test]
fn what_is_stuck_stays_allocated_until_it_goes() {
    let guest = Guest::new();
    let memory = {
        let state = guest.space.state.lock();
        state.owners[&guest.functions[0].0].pages()[0].allocated()
    };
    guest.place(0, &[(0, Some(0))]);
    fail(&guest, usize::MAX / 2);
    guest.space.remove(guest.functions[0].0);
    guest.check();
    assert_eq!((guest.read(), memory.strong_count()), (vec![(0x1000, 0x1000)], 1));
    guest.place(1, &[(0, Some(0))]);
    assert_eq!(guest.mapped().len(), 2, "not mapped over");
    guest.vmm.0.lock().fail = None;
    guest.place(1, &[(0, None)]);
    assert!(guest.vmm.0.lock().is_empty());
    assert_eq!(memory.strong_count(), 0);
}

#[test]
fn what_stays_mapped_at_the_end_stays_allocated_for_good() {
    let guest = Guest::new();
    let id = guest.functions[0].0;
    let memory = guest.space.state.lock().owners[&id].pages()[0].allocated();
    guest.place(0, &[(0, Some(0))]);
    fail(&guest, usize::MAX / 2);
    guest.space.remove(id);
    let Guest { space, vmm, .. } = guest;
    drop(space);
    assert_eq!((vmm.0.lock().read.len(), memory.strong_count()), (1, 1));
}

#[test]
fn reads_can_be_made_to_exit_for_good() {
    let guest = Guest::new();
    let id = guest.functions[0].0;
    let page = BarRange { bar: 0, offset: 0x1000, len: 0x1000 };
    guest.place(0, &[(0, Some(0))]);
    let calls = || guest.vmm.0.lock().calls;
    for unmapped in [1, 0] {
        let before = calls();
        guest.space.trap_reads(id, page, Reason::PendingUntold);
        assert_eq!(calls() - before, unmapped, "nothing else of the BAR goes, not even for an instant");
        assert_eq!(
            (guest.read(), backing(&guest, 0x1000)),
            (vec![], Backing::Trapped(Reason::PendingUntold))
        );
        assert_eq!((guest.mapped().len(), guest.trapped()), (2, vec![(0x1000, 0x2000)]));
        guest.check();
    }
    guest.space.trap_reads(id, BarRange { offset: 0, ..page }, Reason::PendingUntold);
    assert_eq!(backing(&guest, 0), Backing::Mapped, "it reaches the function itself");
    guest.place(0, &[(0, Some(0x10000))]);
    assert_eq!((guest.read(), backing(&guest, 0x1000)), (vec![], Backing::Trapped(Reason::PendingUntold)));
}

#[test]
fn reads_are_made_to_exit_wherever_the_bar_is_and_whatever_became_of_it() {
    let page = BarRange { bar: 0, offset: 0x1000, len: 0x1000 };
    let give_up = |guest: &Guest| guest.space.trap_reads(guest.functions[0].0, page, Reason::PendingUntold);
    let given_up = Backing::Trapped(Reason::PendingUntold);

    let nowhere = Guest::new();
    give_up(&nowhere);
    assert_eq!(nowhere.vmm.0.lock().calls, 0);
    nowhere.place(0, &[(0, Some(0))]);
    assert_eq!(
        (nowhere.read(), nowhere.trapped(), backing(&nowhere, 0x1000)),
        (vec![], vec![(0x1000, 0x2000)], given_up)
    );

    let withdrawn = Guest::new();
    withdrawn.place(0, &[(0, Some(0))]);
    withdrawn.functions[0].1.there.store(false, Ordering::Relaxed);
    assert!(withdrawn.space.withdraw_unanswered());
    give_up(&withdrawn);
    assert_eq!((withdrawn.mapped(), withdrawn.read(), withdrawn.trapped().len()), (vec![], vec![], 3));
    assert_eq!(backing(&withdrawn, 0), Backing::Trapped(Reason::Unanswered));

    let refused = Guest::new();
    let from = refused.vmm.0.lock().calls;
    refused.vmm.0.lock().fail = Some(from + 1..from + 2);
    refused.place(0, &[(0, Some(0))]);
    assert_eq!(backing(&refused, 0x1000), Backing::Trapped(Reason::Failed));
    give_up(&refused);
    assert_eq!(backing(&refused, 0x1000), given_up);

    let stuck = Guest::new();
    stuck.place(0, &[(0, Some(0))]);
    fail(&stuck, 1);
    give_up(&stuck);
    stuck.check();
    assert_eq!((stuck.read(), stuck.trapped()), (vec![(0x1000, 0x1000)], vec![(0x1000, 0x2000)]));
    stuck.place(1, &[]);
    assert_eq!((stuck.read(), stuck.mapped().len()), (vec![], 2), "with the next change");
    for (id, _) in &stuck.functions {
        stuck.space.remove(*id);
    }
    assert!(stuck.vmm.0.lock().is_empty());
}

#[test]
fn traps_alone_are_as_they_were() {
    let guest = Guest::with(TRAPPED);
    guest.place(0, &[(0, Some(0))]);
    assert_eq!((guest.read(), guest.trapped()), (vec![], vec![(0x1000, 0x2000)]));
}
