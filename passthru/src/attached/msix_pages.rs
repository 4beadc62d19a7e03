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
        // Of vectors that the guest does not see there is nothing to read, and pending bits may be in their place.
        let table = BarRange { len: u64::from(function.msix_vectors()) * ENTRY, ..structures.table };
        let table = (!holding(table).is_empty()).then_some(table);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Shape;
    use crate::function::test_support::{endpoint, put, report};

    /// One whose MSI-X structures are in a page of BAR 0, as its registers say, and what the guest reads there.
    fn pages(vectors: u16, table: u32, pending: u32) -> (Function, MsixPages) {
        let mut description = endpoint();
        put(&mut description.config, 0x42, &(vectors - 1).to_le_bytes());
        put(&mut description.config, 0x44, &table.to_le_bytes());
        put(&mut description.config, 0x48, &pending.to_le_bytes());
        let (function, _) = Function::new(&description, &report(), Shape::default()).unwrap();
        let mut pieces = function.pieces().to_vec();
        let pages = MsixPages::new("x", &function, &mut pieces);
        assert_eq!(pages.memory().len(), pieces.iter().filter(|p| p.backing.is_read_only()).count());
        (function, pages)
    }

    fn read(pages: &MsixPages, offset: u64) -> u64 {
        let mut here = pages.pages.iter().filter_map(|pages| pages.word(offset));
        here.next().unwrap()
    }

    #[test]
    fn pending_bits_over_the_end_of_a_table_are_not_written_with_it() {
        let (mut function, pages) = pages(22, 0x2000, 0x2100);
        assert_eq!(function.msix_vectors(), 16);
        let bits = pages.pending().unwrap();
        bits.set(3);
        bits.set(64);
        for offset in [0xf8, 0x100, 0x108, 0x150] {
            function.write_msix_table(offset, &[0xff; 8], &mut Vec::new());
            pages.store(&function, offset, 8, Store::Before);
            pages.store(&function, offset, 8, Store::After);
        }
        assert_eq!([0x20f8, 0x2100, 0x2108, 0x2150].map(|at| read(&pages, at)), [u64::MAX, 1 << 3, 0, 0]);
        pages.store_all(&function);
        assert_eq!(read(&pages, 0x2100), 1 << 3);
        bits.clear(3);
        assert_eq!(read(&pages, 0x2100), 0);
    }

    #[test]
    fn a_mask_shows_after_it_took_effect_and_goes_before() {
        let (mut function, pages) = pages(4, 0x2000, 0x3000);
        let mut write = |control: u8, which| {
            function.write_msix_table(8, &[7, 0, 0, 0, control], &mut Vec::new());
            pages.store(&function, 8, 5, which);
            read(&pages, 0x2008)
        };
        assert_eq!(write(0, Store::After), 1 << 32);
        assert_eq!(write(0, Store::Before), 7);
        assert_eq!(write(1, Store::Before), 7);
        assert_eq!(write(1, Store::After), 1 << 32 | 7);
    }

    /// The first entry is in the page of registers, which is trapped.
    #[test]
    fn of_a_table_behind_registers_the_pages_are_stored_that_begin_with_it() {
        let (mut function, pages) = pages(4, 0x2ff0, 0x3800);
        let ranges: Vec<BarRange> = pages.memory().iter().map(ReadOnlyPages::range).collect();
        assert_eq!(ranges, [BarRange { bar: 0, offset: 0x3000, len: 0x1000 }]);
        assert_eq!([0x3000, 0x3008, 0x3028].map(|at| read(&pages, at)), [0, 1 << 32, 1 << 32]);
        for (offset, data) in [(0x08, 7), (0x18, 9), (0x38, 11)] {
            function.write_msix_table(offset, &[data, 0, 0, 0, 0, 0, 0, 0], &mut Vec::new());
            pages.store(&function, offset, 8, Store::Before);
            pages.store(&function, offset, 8, Store::After);
        }
        assert_eq!([0x3008, 0x3018, 0x3028, 0x3030].map(|at| read(&pages, at)), [9, 1 << 32, 11, 0]);
        pages.pending().unwrap().set(3);
        assert_eq!(read(&pages, 0x3800), 1 << 3);
    }

    #[test]
    fn a_host_that_gives_up_has_its_page_named() {
        let (_, pages) = pages(4, 0x2000, 0x3000);
        assert_eq!(pages.given_up(), []);
        pages.pending().unwrap().give_up();
        assert_eq!(pages.given_up(), [BarRange { bar: 0, offset: 0x3000, len: 0x1000 }]);
    }
}
