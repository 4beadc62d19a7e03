//! Lays out one kind of window for all buses.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use passthru::pci::Slot;
use passthru::pci::bar::Bar;

use super::free::Free;
use super::{PlanError, WindowKind};

/// What is to be placed: a BAR, or a root port's window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The function, or the port.
    pub(super) slot: Slot,
    pub(super) what: What,
    /// Bytes.
    pub(super) size: u64,
    /// Its place is at a multiple of it, a power of two.
    pub(super) alignment: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The BAR of that index.
    Bar(u8),
    /// The window of the port with that bus behind it.
    Port(u8),
}

impl Claim {
    /// A BAR's size is its alignment; in memory it takes a page of its own, so that it can be mapped alone.
    pub(super) fn of_bar(slot: Slot, bar: &Bar, kind: WindowKind) -> Claim {
        Claim { slot, what: What::Bar(bar.index), size: bar.size, alignment: bar.size.max(kind.least()) }
    }

    /// Large alignments first: powers of two placed so, from a place aligned for the first, leave no gaps.
    pub(super) fn placing_order(&self) -> (Reverse<u64>, Reverse<u64>, Slot, What) {
        (Reverse(self.alignment), Reverse(self.size), self.slot, self.what)
    }

    /// Bytes that it takes of its window.
    pub(super) fn extent(&self) -> u64 {
        self.size.max(self.alignment)
    }
}

/// A claim and the address it has got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) claim: Claim,
    pub(super) address: u64,
}

/// Windows and BARs of one kind.
#[derive(Debug, Default)]
pub(super) struct Layout {
    windows: BTreeMap<u8, Range<u64>>,
    places: Vec<Place>,
}

impl Layout {
    pub(super) fn window(&self, bus: u8) -> Option<Range<u64>> {
        self.windows.get(&bus).cloned()
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }
}

/// The layout with windows of twice the need, so that a guest can move BARs, or with the bare need where that
/// does not fit.
pub(super) fn generous(
    kind: WindowKind,
    range: &Range<u64>,
    excluded: &[Range<u64>],
    claims: &[Claim],
) -> Result<Layout, PlanError> {
    let mut layer = Layer { kind, range, claims: by_bus(claims), factor: 2 };
    layer.lay_out(excluded).or_else(|_| {
        layer.factor = 1;
        layer.lay_out(excluded)
    })
}

/// Claims by bus, each bus' in placing order.
fn by_bus(claims: &[Claim]) -> BTreeMap<u8, Vec<Claim>> {
    let mut buses: BTreeMap<u8, Vec<Claim>> = BTreeMap::new();
    for claim in claims {
        buses.entry(claim.slot.bus()).or_default().push(*claim);
    }
    for claims in buses.values_mut() {
        claims.sort_unstable_by_key(Claim::placing_order);
    }
    buses
}

struct Layer<'a> {
    kind: WindowKind,
    range: &'a Range<u64>,
    claims: BTreeMap<u8, Vec<Claim>>,
    /// Windows of buses above 0 have this many times what the bus needs.
    factor: u64,
}

impl Layer<'_> {
    fn lay_out(&self, excluded: &[Range<u64>]) -> Result<Layout, PlanError> {
        let mut free = Free::new(self.range, excluded);
        let mut layout = Layout::default();

        // Other buses first, from the lower end: bus 0 then has the rest in one piece. Those with the largest
        // alignment come first, as with BARs.
        let mut others: Vec<(&Claim, &[Claim])> = self
            .claims
            .values()
            .filter_map(|claims| Some((claims.first()?, claims.as_slice())))
            .filter(|(largest, _)| largest.slot.bus() != 0)
            .collect();
        others.sort_by_key(|(largest, _)| (Reverse(largest.alignment), Reverse(largest.size)));
        for (largest, claims) in others {
            let bus = largest.slot.bus();
            let window = self
                .take_window(&mut free, claims)
                .ok_or_else(|| self.no_room_for_window(&free, largest, claims))?;
            let places = self.place(&mut Free::new(&window, &[]), claims)?;
            layout.windows.insert(bus, window);
            layout.places.extend(places);
        }

        let claims = self.claims.get(&0).map_or(&[][..], Vec::as_slice);
        let mut error = None;
        for piece in free.pieces_by_size() {
            match self.place(&mut Free::new(&piece, &[]), claims) {
                Ok(places) => {
                    layout.windows.insert(0, piece);
                    layout.places.extend(places);
                    return Ok(layout);
                }
                // The largest piece's error says most.
                Err(no_room) => error = error.or(Some(no_room)),
            }
        }
        match (error, claims.first()) {
            (Some(error), _) => Err(error),
            (None, Some(claim)) => Err(self.no_room(claim, 0)),
            (None, None) => Ok(layout),
        }
    }

    /// A window of `factor` times what `claims` need.
    fn take_window(&self, free: &mut Free, claims: &[Claim]) -> Option<Range<u64>> {
        let granularity = self.kind.granularity();
        let mut need = 0u64;
        for claim in claims {
            need = need.checked_add(claim.extent())?;
        }
        let size = need.checked_mul(self.factor)?.checked_next_multiple_of(granularity)?;
        let alignment = claims.first().map_or(granularity, |claim| claim.alignment.max(granularity));
        free.take(size, alignment)
    }

    fn place(&self, free: &mut Free, claims: &[Claim]) -> Result<Vec<Place>, PlanError> {
        let mut places = Vec::with_capacity(claims.len());
        for claim in claims {
            let place = free
                .take(claim.extent(), claim.alignment)
                .ok_or_else(|| self.no_room(claim, free.total()))?;
            places.push(Place { claim: *claim, address: place.start });
        }
        Ok(places)
    }

    /// The first BAR with which a window for `claims` is too large.
    fn no_room_for_window(&self, free: &Free, largest: &Claim, claims: &[Claim]) -> PlanError {
        let fits = |count: &usize| {
            let some = claims.get(..*count).unwrap_or_default();
            self.take_window(&mut free.clone(), some).is_some()
        };
        let fitting = (1..claims.len()).take_while(fits).count();
        let taken: u64 = claims.iter().take(fitting).map(Claim::extent).sum();
        self.no_room(claims.get(fitting).unwrap_or(largest), free.total().saturating_sub(taken))
    }

    fn no_room(&self, claim: &Claim, left: u64) -> PlanError {
        let (window, range, size) = (self.kind, self.range.clone(), claim.size);
        match claim.what {
            What::Bar(bar) => PlanError::NoRoom { slot: claim.slot, bar, size, window, range, left },
            What::Port(bus) => PlanError::NoRoomForPort { bus, size, window, range, left },
        }
    }
}
