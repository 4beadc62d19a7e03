//! One vCPU's way to the routes.

use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::{Routes, Topology};

/// What the cache looks at, to see whether there are new routes.
struct Source(Arc<Topology>);

impl Deref for Source {
    type Target = ArcSwap<Routes>;

    fn deref(&self) -> &ArcSwap<Routes> {
        &self.0.routes
    }
}

/// The routes that one vCPU used last, for as long as they are those that count: a look at them writes no memory, which
/// [`Topology::routes`] does.
#[derive(Default)]
pub struct RoutesView(Option<Cache<Source, Arc<Routes>>>);

impl RoutesView {
    /// Where the guest finds which function now.
    #[inline]
    pub fn of(&mut self, topology: &Arc<Topology>) -> &Routes {
        if self.0.as_ref().is_none_or(|cache| !ptr::eq(cache.arc_swap(), &topology.routes)) {
            self.0 = None;
        }
        self.0.get_or_insert_with(|| first_look(topology)).load()
    }

    /// Lets go of functions that are no longer found: otherwise the next look does.
    pub fn reload(&mut self) {
        if let Some(cache) = &mut self.0 {
            cache.load();
        }
    }
}

#[cold]
fn first_look(topology: &Arc<Topology>) -> Cache<Source, Arc<Routes>> {
    Cache::new(Source(topology.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::topology::tests::{Probe, topology};

    #[test]
    fn it_follows_each_change_and_holds_nobody_once_it_is_reloaded() {
        let probe = Probe::new(7);
        let functions = Arc::new(topology(&[("0:8:0", probe.clone())]));
        let (slot, mut view) = ("0:8:0".parse().unwrap(), RoutesView::default());
        assert!(view.of(&functions).get(slot).is_some());
        assert!(view.of(&Arc::new(topology(&[]))).get(slot).is_none(), "another topology");
        assert!(view.of(&functions).get(slot).is_some());
        drop(functions.withdraw(slot));
        assert_eq!(Arc::strong_count(&probe), 2, "the routes that it used last");
        view.reload();
        assert_eq!(Arc::strong_count(&probe), 1);
        assert!(view.of(&functions).get(slot).is_none());
    }
}
