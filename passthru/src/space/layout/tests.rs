use proptest::prelude::*;

use super::*;

const A: OwnerId = OwnerId(1);
const B: OwnerId = OwnerId(2);

fn layout() -> Layout {
    let mut layout = Layout::default();
    let windows = Windows {
        memory: vec![0xc000_0000..0xe000_0000, 0x1_0000_0000..0x2_0000_0000],
        io: vec![0x1000..0x1_0000],
    };
    for owner in [A, B] {
        layout.add_owner(owner, Arc::new(windows.clone()));
    }
    layout
}

fn at(bar: u8, base: u64, size: u64) -> Placement {
    Placement { bar, space: Space::Memory, size, base: Some(base) }
}

fn bars(placed: &[Placed]) -> Vec<(OwnerId, u8)> {
    placed.iter().map(|p| (p.owner, p.bar)).collect()
}

#[test]
fn bars_answer_in_windows_only() {
    for (base, answers) in [
        (0xc000_0000, true),
        (0xdfff_f000, true),
        (0xdfff_f800, false),
        (0xe000_0000, false),
        (0, false),
        (0x1_0000_0000, true),
        (u64::MAX - 0xfff, false),
    ] {
        let changes = layout().place(A, &[at(0, base, 0x1000)]);
        assert_eq!(changes.add.len() == 1, answers, "{base:#x}");
        assert_eq!(changes.refused.len() == 1, !answers, "{base:#x}");
    }
    let io = Placement { bar: 1, space: Space::Io, size: 0x20, base: Some(0xfffffff0) };
    assert_eq!(layout().place(A, &[io]).add, []);
}

#[test]
fn the_first_stays_and_the_second_waits() {
    let mut layout = layout();
    layout.place(A, &[at(0, 0xc000_0000, 0x4000)]);
    let changes = layout.place(B, &[at(2, 0xc000_3000, 0x1000)]);
    assert_eq!((bars(&changes.add), bars(&changes.refused)), (vec![], vec![(B, 2)]));
    let changes = layout.place(A, &[at(0, 0xc001_0000, 0x4000)]);
    assert_eq!((bars(&changes.remove), bars(&changes.add)), (vec![(A, 0)], vec![(B, 2), (A, 0)]));
    let changes = layout.remove_owner(B);
    assert_eq!((bars(&changes.remove), changes.add), (vec![(B, 2)], vec![]));
}

#[test]
fn bars_that_swap_in_one_change_both_answer() {
    let mut layout = layout();
    layout.place(A, &[at(0, 0xc000_0000, 0x1000), at(1, 0xc000_1000, 0x1000)]);
    let changes = layout.place(A, &[at(0, 0xc000_1000, 0x1000), at(1, 0xc000_0000, 0x1000)]);
    assert_eq!((changes.remove.len(), changes.add.len(), changes.refused.len()), (2, 2, 0));
}

#[test]
fn a_small_bar_has_its_page_while_it_is_alone_there() {
    let small = |bar, base| at(bar, base, 0x100);
    let whole = |layout: &Layout, owner, bar| layout.get(owner, bar).unwrap().whole_pages;
    let mut layout = layout();
    let changes = layout.place(A, &[small(0, 0xc000_0000), at(2, 0xc000_2000, 0x1000)]);
    assert_eq!(changes.add.iter().map(|p| p.whole_pages).collect::<Vec<_>>(), [true, true]);

    let changes = layout.place(B, &[small(1, 0xc000_0f00)]);
    assert_eq!((bars(&changes.remove), bars(&changes.add)), (vec![(A, 0)], vec![(B, 1), (A, 0)]));
    assert!(changes.add.iter().all(|p| !p.whole_pages) && changes.remove[0].whole_pages);

    let changes = layout.place(B, &[small(1, 0xc000_1f00)]);
    assert!(whole(&layout, A, 0) && !whole(&layout, B, 1), "the second does not begin its page");
    assert_eq!((bars(&changes.remove), bars(&changes.add)), (vec![(B, 1), (A, 0)], vec![(B, 1), (A, 0)]));

    let changes = layout.place(B, &[small(1, 0xc000_2f00)]);
    assert_eq!(bars(&changes.refused), [(B, 1)], "a page that is a BAR's is not shared");
    layout.place(B, &[small(1, 0xc000_0800), small(2, 0xc000_0700)]);
    assert!(!whole(&layout, A, 0));
    layout.remove_owner(B);
    assert!(whole(&layout, A, 0));

    let ports = |bar, base| Placement { bar, space: Space::Io, size: 0x20, base: Some(base) };
    let changes = layout.place(A, &[ports(4, 0x1000), ports(5, 0x2000)]);
    assert!(changes.add.iter().all(|p| !p.whole_pages), "ports are not mapped");
}

#[test]
fn a_page_that_is_not_wholly_inside_the_windows_is_nobodys() {
    let mut layout = Layout::default();
    let windows = |end| Arc::new(Windows { memory: vec![0xc000_0000..end], io: vec![] });
    layout.add_owner(A, windows(0xc000_0800));
    layout.place(A, &[at(0, 0xc000_0000, 0x100)]);
    assert!(!layout.get(A, 0).unwrap().whole_pages);
    let changes = layout.set_windows(A, windows(0xc000_1000));
    assert_eq!((changes.remove.len(), changes.add.len(), changes.add[0].whole_pages), (1, 1, true));
    layout.coarsen(0x1_0000);
    layout.set_windows(A, windows(0xc000_2000));
    assert!(!layout.get(A, 0).unwrap().whole_pages);
}

#[test]
fn other_windows_disturb_only_what_falls_outside_or_now_fits() {
    let mut layout = layout();
    layout.place(A, &[at(0, 0xc000_0000, 0x1000), at(1, 0xc100_0000, 0x1000), at(2, 0xf000_0000, 0x1000)]);
    layout.place(B, &[at(0, 0xc100_0000, 0x1000)]);
    let windows = Windows { memory: vec![0xc000_0000..0xc100_0000, 0xf000_0000..0xf800_0000], io: vec![] };
    let changes = layout.set_windows(A, Arc::new(windows.clone()));
    assert_eq!(bars(&changes.remove), [(A, 1)]);
    assert_eq!(bars(&changes.add), [(A, 2), (B, 0)], "and who waited for the place has it");
    assert_eq!(bars(&changes.refused), [(A, 1)]);
    assert_eq!(layout.set_windows(A, Arc::new(windows)), Changes::default());
    assert_eq!(layout.set_windows(OwnerId(9), Arc::default()), Changes::default());
    let changes = layout.set_windows(A, Arc::default());
    assert_eq!((bars(&changes.remove), changes.add), (vec![(A, 0), (A, 2)], vec![]));
}

#[test]
fn moves_of_one_bar_leave_the_others_where_they_are() {
    for (name, base, size, answers) in [
        ("to 0", Some(0), 0x1000, false),
        ("on RAM", Some(0x10_0000), 0x1000, false),
        ("sizing a 32-bit BAR with decoding on", Some(0xffff_f000), 0x1000, false),
        ("sizing the lower half of a 64-bit BAR", Some(0x1_ffff_f000), 0x1000, true),
        ("sizing a 64-bit BAR", Some(u64::MAX - 0xfff), 0x1000, false),
        ("the largest BAR at the top", Some(1 << 63), 1 << 63, false),
        ("above 4 GiB", Some(0x1_8000_0000), 0x1000, true),
        ("on another BAR", Some(0xc000_4000), 0x1000, false),
        ("over the end of its window", Some(0xdfff_f000), 0x2000, false),
        ("where it is", Some(0xc000_0000), 0x1000, true),
        ("decoding off", None, 0x1000, false),
    ] {
        let mut layout = layout();
        layout.place(A, &[at(0, 0xc000_0000, 0x1000), at(1, 0xc000_8000, 0x100)]);
        layout.place(B, &[at(0, 0xc000_4000, 0x4000), at(1, 0xc001_0000, 0x1000)]);
        let others = |layout: &Layout| [(A, 1), (B, 0), (B, 1)].map(|(o, b)| layout.get(o, b).cloned());
        let before = others(&layout);
        let changes = layout.place(A, &[Placement { bar: 0, space: Space::Memory, size, base }]);
        assert_eq!(bars(&changes.remove), [(A, 0)], "{name}");
        assert_eq!(bars(&changes.add), if answers { vec![(A, 0)] } else { vec![] }, "{name}");
        assert_eq!(others(&layout), before, "{name}");
        let back = layout.place(A, &[at(0, 0xc000_0000, 0x1000)]);
        assert_eq!(bars(&back.add), [(A, 0)], "{name}: and back again");
    }
}

/// A function in [`Step::Place`] and its like: one of two, and where its BARs may be.
#[derive(Clone, Debug)]
enum Step {
    Place(bool, Vec<(u8, Option<u64>, u32)>),
    Windows(bool, u64, u64),
    Leave(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let base = prop::option::of(0u64..256);
    let moves = prop::collection::vec((0u8..4, base, 0u32..10), 1..4);
    prop_oneof![
        8 => (any::<bool>(), moves).prop_map(|(second, moves)| Step::Place(second, moves)),
        1 => (any::<bool>(), 0u64..8, 0u64..16).prop_map(|(second, from, len)| Step::Windows(second, from, len)),
        1 => any::<bool>().prop_map(Step::Leave),
    ]
}

proptest! {
    #[test]
    fn what_answers_is_what_the_changes_say_and_pages_have_one_owner(steps in prop::collection::vec(step(), 0..60)) {
        let mut layout = layout();
        let mut windows = [0xc000_0000u64..0xc000_8000, 0xc000_0000..0xc000_8000];
        let mut asked: BTreeMap<(OwnerId, u8), Range<u64>> = BTreeMap::new();
        let mut answering: Vec<Placed> = Vec::new();
        for (owner, w) in [A, B].into_iter().zip(&windows) {
            layout.set_windows(owner, Arc::new(Windows { memory: vec![w.clone()], io: vec![] }));
        }
        for step in steps {
            let changes = match step {
                Step::Place(second, moves) => {
                    let owner = [A, B][usize::from(second)];
                    let mut placements: Vec<Placement> = Vec::new();
                    for (bar, place, log) in moves {
                        let size = 0x20u64 << log;
                        let base = place.map(|p| (0xbfff_e000 + p * 0x80) & !(size - 1));
                        if placements.iter().all(|p| p.bar != bar) {
                            placements.push(Placement { bar, space: Space::Memory, size, base });
                            match base {
                                Some(base) => asked.insert((owner, bar), base..base + size),
                                None => asked.remove(&(owner, bar)),
                            };
                        }
                    }
                    layout.place(owner, &placements)
                }
                Step::Windows(second, from, len) => {
                    let start = 0xc000_0000 + from * 0x800;
                    windows[usize::from(second)] = start..start + len * 0x800;
                    let w = Windows { memory: vec![windows[usize::from(second)].clone()], io: vec![] };
                    layout.set_windows([A, B][usize::from(second)], Arc::new(w))
                }
                Step::Leave(second) => {
                    let owner = [A, B][usize::from(second)];
                    asked.retain(|(o, _), _| *o != owner);
                    let changes = layout.remove_owner(owner);
                    let w = Windows { memory: vec![windows[usize::from(second)].clone()], io: vec![] };
                    layout.add_owner(owner, Arc::new(w));
                    changes
                }
            };
            for gone in &changes.remove {
                let before = answering.len();
                answering.retain(|p| p != gone);
                prop_assert_eq!(answering.len(), before - 1, "only what answered goes, and as it was");
            }
            for new in changes.add {
                let apart = |p: &Placed| p.range.end <= new.range.start || new.range.end <= p.range.start;
                prop_assert!(answering.iter().all(apart));
                answering.push(new);
            }
            for p in &answering {
                let window = &windows[usize::from(p.owner == B)];
                prop_assert!(window.start <= p.range.start && p.range.end <= window.end);
                prop_assert_eq!(asked.get(&(p.owner, p.bar)), Some(&p.range));
                prop_assert_eq!(layout.get(p.owner, p.bar), Some(p));
                let pages = p.range.start & !0xfff..p.range.end.next_multiple_of(0x1000);
                let shared = answering.iter().any(|o| {
                    (o.owner, o.bar) != (p.owner, p.bar) && o.range.start < pages.end && pages.start < o.range.end
                });
                let inside = window.start <= pages.start && pages.end <= window.end;
                let whole = !shared && inside && p.range.start == pages.start;
                prop_assert_eq!(p.whole_pages, whole, "{:?}", p);
            }
            // Who asked and does not answer is in somebody's way, or outside.
            for ((owner, bar), range) in &asked {
                let window = &windows[usize::from(*owner == B)];
                let inside = window.start <= range.start && range.end <= window.end;
                let blocked = answering.iter().any(|o| o.range.start < range.end && range.start < o.range.end);
                prop_assert!(!inside || blocked, "{:?} BAR {} could answer", owner, bar);
            }
        }
    }
}
