//! The MSI-X table and the pending bits, in pages that the guest reads without an exit.

use std::sync::Arc;

use log::debug;

use crate::function::Function;
use crate::function::pieces::{Backing, Piece, Reason};
use crate::host::{BarRange, PendingBits};
use crate::space::ReadOnlyPages;

/// Bytes of a table entry, and where in it the dword is whose bit 0 masks the vector.
const ENTRY: u64 = 16;
const CONTROL: u64 = 12;
const MASKED: u32 = 1;

/// The pages of a function, which hold what a read by the trap of the same place would give.
#[derive(Default)]
pub struct MsixPages {
    pages: Vec<ReadOnlyPages>,
    /// The table, if the guest reads some of it so.
    table: Option<BarRange>,
    pending: Option<PendingPages>,
}

struct PendingPages {
    bits: Arc<PendingBits>,
    /// The pieces that hold some of them.
    pieces: Vec<BarRange>,
}

/// Which dwords of a write to the table are stored: a mask shows once no interrupt comes any more, and is gone before one
/// comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Those that mask nothing, before the write takes effect.
    Before,
    /// Those that mask a vector, after it has.
    After,
}

impl MsixPages {
    /// Memory for the read-only ones of `pieces`. Those for which there is none are trapped.
    pub fn new(name: &str, function: &Function, pieces: &mut [Piece]) -> MsixPages {
        let mut pages = Vec::new();
        for piece in pieces.iter_mut().filter(|piece| piece.backing.is_read_only()) {
            match ReadOnlyPages::new(piece.range) {
                Ok(new) => pages.push(new),
                Err(error) => {
                    debug!("{name}: memory in the place of {}: {error}", piece.range);
                    piece.backing = Backing::Trapped(Reason::Failed);
                }
            }
        }
        let Some(structures) = function.msix_structures() else { return MsixPages::default() };
        let holding = |place: BarRange| -> Vec<ReadOnlyPages> {
            pages.iter().filter(|pages| overlaps(&pages.range(), &place)).cloned().collect()
        };
        let table = (!holding(structures.table).is_empty()).then_some(structures.table);
        let of_pending = holding(structures.pending);
        let pending = (!of_pending.is_empty()).then(|| PendingPages {
            pieces: of_pending.iter().map(ReadOnlyPages::range).collect(),
            bits: Arc::new(PendingBits::new(structures.pending, of_pending)),
        });
        let pages = MsixPages { pages, table, pending };
        pages.store_all(function);
        pages
    }

    /// The memory of each piece.
    pub fn memory(&self) -> Vec<ReadOnlyPages> {
        self.pages.clone()
    }

    /// What the host keeps, if there is such a page.
    pub fn pending(&self) -> Option<Arc<PendingBits>> {
        self.pending.as_ref().map(|pending| pending.bits.clone())
    }

    /// The pieces whose reads have to exit, since their host no longer keeps pending bits.
    pub fn given_up(&self) -> &[BarRange] {
        match &self.pending {
            Some(pending) if pending.bits.is_given_up() => &pending.pieces,
            _ => &[],
        }
    }

    /// Stores what was written to bytes of the table, as the function has it now.
    pub fn store(&self, function: &Function, offset: u64, len: usize, which: Store) {
        let Some(table) = &self.table else { return };
        let end = offset.saturating_add(len as u64).min(table.len);
        for at in (offset & !3..end).step_by(4) {
            let mut bytes = [0; 4];
            function.read_msix_table(at, &mut bytes);
            let dword = u32::from_le_bytes(bytes);
            let masks = at % ENTRY == CONTROL && dword & MASKED != 0;
            if masks == (which == Store::After) {
                let offset = table.offset.saturating_add(at);
                let of_bar = self.pages.iter().filter(|pages| pages.range().bar == table.bar);
                of_bar.for_each(|pages| pages.store(offset, dword));
            }
        }
    }

    /// Stores the whole table, of a function without vectors that are on.
    pub fn store_all(&self, function: &Function) {
        if let Some(table) = &self.table {
            let len = usize::try_from(table.len).unwrap_or_default();
            self.store(function, 0, len, Store::Before);
            self.store(function, 0, len, Store::After);
        }
    }
}

fn overlaps(a: &BarRange, b: &BarRange) -> bool {
    a.bar == b.bar && a.offset < b.offset.saturating_add(b.len) && b.offset < a.offset.saturating_add(a.len)
}
