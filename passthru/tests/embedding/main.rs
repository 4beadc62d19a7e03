//! The library as an embedder uses it: ports and hosts that are not this workspace's VMM.

// A test that meets what it does not expect is to stop.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod attach;
mod config_calls;
mod hostile_guest;
mod intx;
mod kernel_delivered;
mod log_lines;
mod msix_pages;
mod racing;
mod reset;
mod rom;
mod vmm;
