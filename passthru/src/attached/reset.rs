//! Resets: which functions together, and on whose thread.
//!
//! A reset takes 100 ms and more. It never runs on the thread of a guest's access, nor under a lock: the function is
//! silenced and taken out of the address space first, answers nothing while it is reset, and comes back with its
//! registers as after power-on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};

use log::warn;

use super::Attached;
use super::inner::Inner;
use super::presence::{Begun, Presence};
use crate::host::{Cause, HostError, HostFunction, Operation, ResetMethod};

/// A host's function that was just reset, where it can be: nothing of its last user is left in it.
pub struct Fresh(pub(super) Arc<dyn HostFunction>);

impl Fresh {
    /// Resets functions that are about to be attached, all at once, but for those that were reset by being opened. Those that
    /// can only be reset together with others must be among them with all of these, or are not reset, which the log says. If
    /// one fails, none is given.
    pub fn all(hosts: Vec<Arc<dyn HostFunction>>) -> Result<Vec<Fresh>, HostError> {
        // Each is asked, also one that a bus' reset comes to: the answer is for this time only.
        let fresh: Vec<bool> = hosts.iter().map(|host| host.is_fresh()).collect();
        let needs = |index: usize| !fresh.get(index).is_some_and(|fresh| *fresh);
        for (_, error) in reset_hosts(&hosts, hosts.len(), needs) {
            match error.source {
                Cause::OnlyWith(_) => warn!("{error}; the guest finds the function as its last user left it"),
                _ => return Err(error),
            }
        }
        Ok(hosts.into_iter().map(Fresh).collect())
    }

    /// Resets one that is about to be attached.
    pub fn one(host: Arc<dyn HostFunction>) -> Result<Fresh, HostError> {
        Fresh::all(vec![host.clone()]).map(|_| Fresh(host))
    }

    /// The function.
    pub fn host(&self) -> &Arc<dyn HostFunction> {
        &self.0
    }
}

/// Resets that are under way.
#[must_use = "drop it to let them run by themselves"]
pub struct Resetting {
    thread: Option<JoinHandle<()>>,
    functions: Vec<Arc<Presence>>,
}

impl Resetting {
    /// Waits until all of the functions are there again.
    pub fn wait(self) {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
        self.functions.iter().for_each(|function| function.wait());
    }
}

impl Attached {
    /// Begins to reset functions, all at once: the guest's view of each returns to its start, BARs unassigned, and from
    /// now until its reset is over it answers nothing. Functions that can only be reset together are reset once, and only
    /// if all of them are given. One that is being reset already is not there again before all of these are, but no
    /// further reset is made for it alone. What fails is said in the log: such a function is silent, but the guest finds
    /// it as it left it.
    pub fn begin_resets<'a>(functions: impl IntoIterator<Item = &'a Attached>) -> Resetting {
        let (mut silent, mut others) = (Silent(Vec::new()), Silent(Vec::new()));
        for function in functions {
            match function.inner.silence() {
                Begun::First => silent.0.push(function.inner.clone()),
                Begun::Another => others.0.push(function.inner.clone()),
                Begun::Refused => {}
            }
        }
        run(silent, others)
    }
}

impl Inner {
    /// Takes the function out of the guest's reach.
    fn silence(&self) -> Begun {
        let mut core = self.core.lock();
        let begun = self.presence.begin_reset();
        if begun == Begun::First {
            self.reset_core(&mut core);
        }
        begun
    }

    /// The guest asked for a reset of this function only. The caller holds its lock, has silenced it, and found it there.
    pub fn begin_own_reset(&self) {
        if let Some(own) = self.own.upgrade()
            && self.presence.begin_reset() != Begun::Refused
        {
            drop(run(Silent(vec![own]), Silent(Vec::new())));
        }
    }

    /// Takes the function out of the guest's reach for good. False when that was done already.
    pub fn leave(&self) -> bool {
        // From here on the guest begins no further reset.
        self.presence.begin_leaving();
        self.presence.wait();
        let mut core = self.core.lock();
        if !self.presence.leave() {
            return false;
        }
        // Unmaps, takes the vectors down, and turns bus mastering off: in this order no access and no interrupt meets a
        // function that is half gone.
        self.reset_core(&mut core);
        core.place = None;
        true
    }
}

/// Functions that are being reset. When this is dropped, they are there again, whatever happened.
struct Silent(Vec<Arc<Inner>>);

impl Drop for Silent {
    fn drop(&mut self) {
        let functions = std::mem::take(&mut self.0);
        let presences: Vec<_> = functions.iter().map(|function| function.presence.clone()).collect();
        // Whoever waits for the end may want to be the last who has them.
        drop(functions);
        presences.iter().for_each(|presence| presence.end_reset());
    }
}

/// Resets functions that are silent on a thread of their own; `others` are being reset by somebody else, and stay silent
/// until this is done.
fn run(silent: Silent, others: Silent) -> Resetting {
    let presence = |function: &Arc<Inner>| function.presence.clone();
    let presences: Vec<_> = silent.0.iter().chain(&others.0).map(presence).collect();
    // However often a guest asks, nothing is begun that is under way.
    if silent.0.is_empty() {
        return Resetting { thread: None, functions: presences };
    }
    let functions = silent.0.clone();
    let work = move || {
        let host = |function: &Arc<Inner>| function.host.clone();
        let hosts: Vec<_> = silent.0.iter().chain(&others.0).map(host).collect();
        for (index, error) in reset_hosts(&hosts, silent.0.len(), |_| true) {
            if let Some(function) = silent.0.get(index) {
                function.report_reset(&error);
            }
        }
        drop(hosts);
        drop((silent, others));
    };
    match Builder::new().name("reset".to_owned()).spawn(work) {
        Ok(thread) => Resetting { thread: Some(thread), functions: presences },
        Err(source) => {
            // The closure went, and with it they are there again.
            for function in functions {
                function.report_reset(&failed(&function.host, io::Error::from(source.kind()).into()));
            }
            Resetting { thread: None, functions: presences }
        }
    }
}

fn failed(host: &Arc<dyn HostFunction>, source: Cause) -> HostError {
    HostError { device: host.name().clone(), operation: Operation::Reset, source }
}

/// Resets the first `count` functions, those that do not depend on each other at once. The others are as silent as these,
/// so that they can be reset together with them. Of those that can be reset alone, only whose turn `needs` says it is.
/// Gives the indices of those that were not reset and should have been.
pub(super) fn reset_hosts(
    hosts: &[Arc<dyn HostFunction>],
    count: usize,
    needs: impl Fn(usize) -> bool,
) -> Vec<(usize, HostError)> {
    let is_here = |name: &Arc<str>| hosts.iter().any(|host| host.name() == name);
    let others = |host: &Arc<dyn HostFunction>| match &host.report().reset {
        Some(ResetMethod::BusWith(others)) => Some(others.clone()),
        _ => None,
    };
    let mut errors = Vec::new();
    // Of functions that are reset together, the first does it for all.
    let mut sets: BTreeMap<Vec<Arc<str>>, usize> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate().take(count) {
        let Some(others) = others(host) else { continue };
        if others.iter().all(is_here) {
            let mut members = vec![host.name().clone()];
            members.extend(others.iter().cloned());
            members.sort();
            sets.entry(members).or_insert(index);
        } else {
            // They would lose their state with it.
            errors.push((index, failed(host, Cause::OnlyWith(others))));
        }
    }
    // One that is reset with its bus needs no reset of its own, and the kernel would make the bus wait for it.
    let alone = hosts.iter().enumerate().take(count).filter(|(index, host)| {
        let in_set = sets.keys().any(|members| members.contains(host.name()));
        host.report().resets_alone() && !in_set && needs(*index)
    });
    let mut leaders: Vec<usize> = alone.map(|(index, _)| index).chain(sets.values().copied()).collect();
    let one = |index: usize| hosts.get(index).and_then(|host| Some((index, host.reset().err()?)));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        // The last is done here; so is one for which there is no thread.
        let mut here: Vec<usize> = leaders.pop().into_iter().collect();
        for index in leaders {
            match Builder::new().name("reset".to_owned()).spawn_scoped(scope, move || one(index)) {
                Ok(thread) => threads.push(thread),
                Err(_) => here.push(index),
            }
        }
        errors.extend(here.into_iter().filter_map(one));
        errors.extend(threads.into_iter().filter_map(|thread| thread.join().ok().flatten()));
    });
    errors
}
