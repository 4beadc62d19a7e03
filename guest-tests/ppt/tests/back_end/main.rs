//! `passthru`'s ppt host over this kernel: what each errno becomes, and whole lives of a function.

// A test that meets what it does not expect is to stop.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod errors;
mod guest;
mod interrupts;
mod life;
mod of_2018;
mod opening;
mod world;

/// The ports that only keep book.
#[path = "../../../../passthru/tests/embedding/vmm.rs"]
#[allow(dead_code)]
mod vmm;
