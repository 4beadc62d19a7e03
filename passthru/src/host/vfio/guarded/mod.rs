//! Loads and stores that end in an error, not in the process' death, when they meet a bus error.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "absent.rs")]
mod target;

pub use target::{is_available, read, write};
