//! Pointing the host's vectors at eventfds, with as few calls to its kernel as it allows.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{State, Vector};
use crate::host::MessageKind;

/// The host's side of vectors: which eventfd each signals.
pub trait Triggers: Send + Sync {
    /// From now on the vectors from `first` on signal these eventfds, or nothing; with one call to the host's kernel,
    /// which does all of it or nothing. The first call for a kind turns it on.
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused>;
    /// No vector of this kind signals anything, and the kind is off.
    fn disable(&self, kind: MessageKind) -> io::Result<()>;
    /// Vectors beyond those of the first call can be set while those are live. Never so with MSI.
    fn is_dynamic(&self, kind: MessageKind) -> bool;
}

/// Counts the calls.
pub(super) struct Counted<'a, T> {
    pub(super) triggers: &'a T,
    pub(super) calls: &'a AtomicU64,
}

impl<T: Triggers> Triggers for Counted<'_, T> {
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.triggers.set(kind, first, events)
    }

    fn disable(&self, kind: MessageKind) -> io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.triggers.disable(kind)
    }

    fn is_dynamic(&self, kind: MessageKind) -> bool {
        self.triggers.is_dynamic(kind)
    }
}

/// Why vectors were not set.
#[derive(Debug)]
pub struct Refused {
    /// errno
    pub source: io::Error,
    /// How many the host could have set up from 0 on, if it says so.
    pub available: Option<u16>,
}

impl From<io::Error> for Refused {
    fn from(source: io::Error) -> Refused {
        Refused { source, available: None }
    }
}

/// The same error again, for another vector.
pub(super) fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Points those of the vectors that the host does not signal yet at their eventfds, and turns the kind on if it is not.
/// Gives the vectors that the host refused; those stay as they were.
pub(super) fn point(
    triggers: &impl Triggers,
    state: &mut State,
    kind: MessageKind,
    vectors: &[u16],
) -> Vec<(u16, io::Error)> {
    let is_new = |state: &State, vector: &u16| state.vector(*vector).is_some_and(|v| !v.triggered);
    let mut new: Vec<u16> = vectors.iter().copied().filter(|vector| is_new(state, vector)).collect();
    new.sort_unstable();
    new.dedup();
    let mut refused = Vec::new();
    if state.live == 0 {
        match turn_on(triggers, state, kind, &new) {
            Ok(()) => new.retain(|vector| is_new(state, vector)),
            Err(source) if new.is_empty() => return vec![(0, source)],
            Err(source) => return new.into_iter().map(|vector| (vector, same(&source))).collect(),
        }
    }
    if !triggers.is_dynamic(kind) {
        let live = state.live;
        let beyond = new.extract_if(.., |vector| *vector >= live);
        refused.extend(beyond.map(|vector| (vector, io::Error::from_raw_os_error(libc::ENOSPC))));
    }
    let mut left: Vec<RangeInclusive<u16>> = runs(state, &new);
    left.reverse();
    let mut full = false;
    while let Some(run) = left.pop() {
        if full {
            let no_room = |vector| (vector, io::Error::from_raw_os_error(libc::ENOSPC));
            refused.extend(run.filter(|vector| is_new(state, vector)).map(no_room));
            continue;
        }
        let Err(error) = set(triggers, state, kind, run.clone()) else { continue };
        if run.start() == run.end() {
            // The host has no vector left to give: nor will it have one for those that come after.
            full = error.source.raw_os_error() == Some(libc::ENOSPC);
            refused.push((*run.start(), error.source));
        } else {
            // The kernel took none of the run: by halves, so that one that fails takes no other with it, and what fails
            // is found in few calls.
            let within: Vec<u16> = run.filter(|vector| is_new(state, vector)).collect();
            let (first, second) = within.split_at(within.len() / 2);
            let half = |vectors: &[u16]| Some(*vectors.first()?..=*vectors.last()?);
            left.extend([second, first].into_iter().filter_map(half));
        }
    }
    refused
}

/// The first call. Where the number of vectors is fixed by it, it is for all of them or as many as there are; elsewhere
/// for the new ones, if they are the first, or for vector 0, which need not signal anything.
fn turn_on(triggers: &impl Triggers, state: &mut State, kind: MessageKind, new: &[u16]) -> io::Result<()> {
    let all = state.on.map_or(1, |(_, count)| count).max(1);
    let first = new.iter().zip(0..).take_while(|(vector, n)| *vector == n).count() as u16;
    let many = if triggers.is_dynamic(kind) { first.max(1) } else { all };
    let Err(error) = set(triggers, state, kind, 0..=many - 1) else { return Ok(()) };
    match error.available {
        Some(available) if (1..many).contains(&available) => {
            set(triggers, state, kind, 0..=available - 1).map_err(|error| error.source)
        }
        // One of them could not be had: room for all, none signalling, and then each that can.
        _ => set_up(triggers, state, kind, many).or_else(|error| match many {
            1 => Err(error),
            _ => set_up(triggers, state, kind, 1),
        }),
    }
}

/// Turns the kind on with so many vectors that signal nothing.
fn set_up(triggers: &impl Triggers, state: &mut State, kind: MessageKind, count: u16) -> io::Result<()> {
    let none: Vec<Option<BorrowedFd<'_>>> = vec![None; usize::from(count)];
    triggers.set(kind, 0, &none).map_err(|error| error.source)?;
    state.live = state.live.max(count);
    Ok(())
}

/// Ranges that hold all the new vectors and none that the host signals already: setting one of those again would drop
/// its interrupt and request it anew, and a signal in between would be lost. So new vectors in between live ones take a
/// call for each gap; those that a guest programs under the function's mask after turning MSI-X on take one.
fn runs(state: &State, new: &[u16]) -> Vec<RangeInclusive<u16>> {
    let mut runs: Vec<RangeInclusive<u16>> = Vec::new();
    for vector in new {
        let is_free = |from: u16| (from..*vector).all(|v| !state.vector(v).is_some_and(|v| v.triggered));
        match runs.last_mut() {
            Some(run) if is_free(*run.end()) => *run = *run.start()..=*vector,
            _ => runs.push(*vector..=*vector),
        }
    }
    runs
}

fn set(
    triggers: &impl Triggers,
    state: &mut State,
    kind: MessageKind,
    run: RangeInclusive<u16>,
) -> Result<(), Refused> {
    let events: Vec<_> = run.clone().map(|vector| state.vector(vector).map(Vector::fd)).collect();
    triggers.set(kind, *run.start(), &events)?;
    state.live = state.live.max(run.end().saturating_add(1));
    for vector in run {
        if let Some(entry) = state.vector_mut(vector) {
            entry.triggered = true;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::os::fd::AsRawFd;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::ports::Gsi;

    /// A host with room for so many vectors, which writes down the calls: first vector, and for each whether it is to
    /// signal something.
    struct Host {
        room: usize,
        dynamic: bool,
        calls: Mutex<Vec<(u16, String)>>,
        set: Mutex<Vec<bool>>,
    }

    impl Host {
        fn new(room: usize, dynamic: bool) -> Host {
            Host { room, dynamic, calls: Mutex::default(), set: Mutex::default() }
        }

        fn calls(&self) -> Vec<(u16, String)> {
            std::mem::take(&mut self.calls.lock())
        }
    }

    impl Triggers for Host {
        fn set(
            &self,
            kind: MessageKind,
            first: u16,
            events: &[Option<BorrowedFd<'_>>],
        ) -> Result<(), Refused> {
            assert!(events.iter().flatten().all(|event| event.as_raw_fd() >= 0));
            let shown = events.iter().map(|event| if event.is_some() { 'x' } else { '-' }).collect();
            self.calls.lock().push((first, shown));
            let mut set = self.set.lock();
            let (start, end) = (usize::from(first), usize::from(first) + events.len());
            let fixed = !self.is_dynamic(kind) && !set.is_empty();
            let mut after = set.clone();
            after.resize(after.len().max(end), false);
            for (slot, event) in after[start..end].iter_mut().zip(events) {
                *slot = event.is_some() || !self.is_dynamic(kind);
            }
            let used = after.iter().filter(|taken| **taken).count();
            if fixed && end > set.len() || used > self.room {
                let source = io::Error::from_raw_os_error(libc::ENOSPC);
                let available = set.is_empty().then_some(self.room as u16);
                return Err(Refused { source, available });
            }
            *set = after;
            Ok(())
        }

        fn disable(&self, _: MessageKind) -> io::Result<()> {
            Ok(())
        }

        fn is_dynamic(&self, kind: MessageKind) -> bool {
            self.dynamic && kind == MessageKind::Msix
        }
    }

    struct Function {
        state: State,
        kind: MessageKind,
    }

    impl Function {
        fn new(kind: MessageKind, count: u16) -> Function {
            let vectors = (0..count).map(|_| None).collect();
            Function { state: State { on: Some((kind, count)), vectors, ..State::default() }, kind }
        }

        /// Arms vectors and gives those that failed.
        fn arm(&mut self, host: &Host, vectors: &[u16]) -> Vec<u16> {
            for vector in vectors {
                self.state.vectors[usize::from(*vector)].get_or_insert_with(|| Vector {
                    event: EventFd::new(0).unwrap(),
                    gsi: Gsi(0),
                    message: None,
                    attached: true,
                    triggered: false,
                    pending: false,
                });
            }
            let failed = point(host, &mut self.state, self.kind, vectors);
            for (vector, _) in &failed {
                self.state.vectors[usize::from(*vector)] = None;
            }
            failed.into_iter().map(|(vector, _)| vector).collect()
        }
    }

    const NONE: [u16; 0] = [];

    fn call(first: u16, events: &str) -> (u16, String) {
        (first, events.to_owned())
    }

    #[test]
    fn a_host_that_grows_is_asked_once_for_each_change() {
        let host = Host::new(64, true);
        let mut function = Function::new(MessageKind::Msix, 64);
        assert_eq!(function.arm(&host, &[]), NONE);
        assert_eq!(host.calls(), [call(0, "-")], "turned on");
        assert_eq!(function.arm(&host, &[0, 1, 2, 3]), NONE);
        assert_eq!(host.calls(), [call(0, "xxxx")]);
        assert_eq!(function.arm(&host, &[2, 9, 6]), NONE);
        assert_eq!(host.calls(), [call(6, "x--x")], "gaps that signal nothing are bridged");
        assert_eq!(function.arm(&host, &[5, 7]), NONE);
        assert_eq!(host.calls(), [call(5, "x"), call(7, "x")], "what is live is left alone");
        assert_eq!(function.arm(&host, &[5, 7]), NONE);
        assert_eq!(host.calls(), []);
    }

    #[test]
    fn a_host_that_cannot_grow_is_asked_for_all_at_first() {
        let host = Host::new(64, false);
        let mut function = Function::new(MessageKind::Msix, 4);
        assert_eq!(function.arm(&host, &[1]), NONE);
        assert_eq!(host.calls(), [call(0, "-x--")]);
        assert_eq!(function.arm(&host, &[3]), NONE);
        assert_eq!(host.calls(), [call(3, "x")]);
    }

    #[test]
    fn msi_is_set_up_as_a_whole_and_vectors_are_unmasked_one_by_one() {
        let host = Host::new(64, true);
        let mut function = Function::new(MessageKind::Msi, 4);
        assert_eq!(function.arm(&host, &[]), NONE);
        for vector in 0..4 {
            assert_eq!(function.arm(&host, &[vector]), NONE);
        }
        let single = |vector| call(vector, "x");
        assert_eq!(host.calls(), [call(0, "----"), single(0), single(1), single(2), single(3)]);
    }

    #[test]
    fn what_there_is_room_for_works() {
        for (dynamic, first_calls) in [
            (true, vec![call(0, "xxxx"), call(0, "xxx"), call(3, "x")]),
            (false, vec![call(0, "xxxx----"), call(0, "xxx")]),
        ] {
            let host = Host::new(3, dynamic);
            let mut function = Function::new(MessageKind::Msix, 8);
            assert_eq!(function.arm(&host, &[0, 1, 2, 3]), [3]);
            assert_eq!(host.calls(), first_calls);
            assert_eq!(function.arm(&host, &[3]), [3]);
        }
        let host = Host::new(1, true);
        let mut function = Function::new(MessageKind::Msi, 8);
        assert_eq!(function.arm(&host, &[0, 1]), [1], "multi-message MSI on a host without room for it");
        let none = Host::new(0, true);
        let mut function = Function::new(MessageKind::Msix, 8);
        assert_eq!(function.arm(&none, &[2, 5]), [2, 5]);
    }

    #[test]
    fn one_that_fails_takes_no_other_with_it() {
        let host = Host::new(5, true);
        let mut function = Function::new(MessageKind::Msix, 16);
        assert_eq!(function.arm(&host, &[0, 1, 2]), NONE);
        assert_eq!(function.arm(&host, &[4, 6, 8]), [8]);
    }

    #[test]
    fn a_host_without_room_for_all_is_found_out_in_few_calls() {
        let host = Host::new(195, true);
        let mut function = Function::new(MessageKind::Msix, 2048);
        let all: Vec<u16> = (0..2048).collect();
        assert_eq!(function.arm(&host, &all).len(), 2048 - 195);
        assert!(host.calls().len() <= 2 + 12, "the first, what there is room for, and halves");
        // Turned on before, as a guest does that programs its vectors under the function's mask.
        let host = Host::new(195, true);
        let mut function = Function::new(MessageKind::Msix, 2048);
        assert_eq!(function.arm(&host, &[]), NONE);
        assert_eq!(function.arm(&host, &all).len(), 2048 - 195);
        assert!(host.calls().len() <= 2 + 2 * 11);
    }
}
