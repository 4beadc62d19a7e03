//! The host's pool of reserved huge pages (Linux `Documentation/admin-guide/mm/hugetlbpage.rst`).

use std::path::Path;

/// The pool of 2 MiB pages.
pub(super) const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// How many pages the pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Pages in the pool, in use or not.
    pub total: u64,
    /// Pages that a new mapping can have: not in use and not promised to another mapping.
    pub available: u64,
}

/// The state of the host's pool of 2 MiB pages, or nothing if this kernel has none.
pub fn pool_state() -> Option<PoolState> {
    state_of(Path::new(POOL))
}

fn state_of(pool: &Path) -> Option<PoolState> {
    let read =
        |name: &str| -> Option<u64> { std::fs::read_to_string(pool.join(name)).ok()?.trim().parse().ok() };
    let free = read("free_hugepages")?;
    // Counted in free_hugepages until they are touched, yet no longer to be had.
    let promised = read("resv_hugepages")?;
    Some(PoolState { total: read("nr_hugepages")?, available: free.saturating_sub(promised) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promised_pages_are_not_available() {
        let directory = tempfile::tempdir().unwrap();
        let pool = directory.path();
        for (name, text) in [("nr_hugepages", "8\n"), ("free_hugepages", "6\n"), ("resv_hugepages", "2\n")] {
            std::fs::write(pool.join(name), text).unwrap();
        }
        assert_eq!(state_of(pool), Some(PoolState { total: 8, available: 4 }));
        std::fs::write(pool.join("free_hugepages"), "many").unwrap();
        assert_eq!(state_of(pool), None);
    }
}
