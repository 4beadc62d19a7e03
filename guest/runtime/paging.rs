//! Maps physical memory above 4 GiB, where it is: 2 MiB pages, identity mapped. What lies below is mapped by
//! `shim/tables.s`.
//!
//! The tables can be written from CPL3. An entry only ever goes from not present to present, which no TLB holds, so
//! nothing is flushed.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const PRESENT_WRITABLE_USER: u64 = 0x7;
const LARGE: u64 = 0x80;
const CACHE_DISABLE_WRITE_THROUGH: u64 = 0x18;
const LARGE_PAGE: u64 = 2 << 20;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Tables for what is mapped beyond 4 GiB: 1 GiB each, and one more for each 512 GiB touched.
const SPARE_TABLES: usize = 64;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

static SPARES: [Table; SPARE_TABLES] = [const { Table([const { AtomicU64::new(0) }; 512]) }; SPARE_TABLES];
static SPARES_USED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    static pml4: Table;
    static image_start: u8;
    static image_end: u8;
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Caching {
    WriteBack,
    Uncached,
}

/// The physical memory that the program itself takes.
pub fn image() -> Range<u64> {
    (&raw const image_start) as u64..(&raw const image_end) as u64
}

/// # Panics
/// If the spare tables are used up, or the range reaches beyond what four levels can map in the lower half.
pub fn map(address: u64, length: u64, caching: Caching) {
    let end = address + length;
    assert!(end <= 1 << 47, "{address:#x}+{length:#x} is beyond what can be mapped");
    let mut page = address & !(LARGE_PAGE - 1);
    if page < 1 << 32 {
        page = 1 << 32;
    }
    // SAFETY: the symbol is the top table in shim/tables.s.
    let top = unsafe { &pml4 };
    while page < end {
        let directory = next(next(top, page >> 39), page >> 30);
        let entry = &directory.0[index(page >> 21)];
        let attributes = if caching == Caching::Uncached { CACHE_DISABLE_WRITE_THROUGH } else { 0 };
        if entry.load(Ordering::Relaxed) == 0 {
            entry.store(page | attributes | LARGE | PRESENT_WRITABLE_USER, Ordering::Release);
        }
        page += LARGE_PAGE;
    }
}

fn index(number: u64) -> usize {
    (number & 511) as usize
}

fn next(table: &'static Table, number: u64) -> &'static Table {
    let entry = &table.0[index(number)];
    if entry.load(Ordering::Acquire) == 0 {
        let spare = SPARES.get(SPARES_USED.fetch_add(1, Ordering::Relaxed)).expect("no page tables left");
        entry.store((&raw const *spare) as u64 | PRESENT_WRITABLE_USER, Ordering::Release);
    }
    let address = entry.load(Ordering::Acquire) & ADDRESS;
    // SAFETY: entries above the last level hold addresses of tables in shim/tables.s or of spares; both stay.
    unsafe { &*(address as *const Table) }
}
