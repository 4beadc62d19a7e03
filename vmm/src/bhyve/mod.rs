//! bhyve's own descriptions of a VM, as far as they say which function goes to which slot.
//!
//! [`config`] reads files of bhyve_config(5) and [`args`] a command line of bhyve(8). Both fill the same tree of
//! [`variables`], as they do in bhyve, and [`description`] makes of it what a `--config` file says. [`export`] goes the
//! other way. What illumos and FreeBSD write differently is read in both ways at once; no text means two things.

pub mod args;
pub mod config;
pub mod description;
pub mod device;
pub mod error;
pub mod export;
pub mod number;
pub mod variables;

#[cfg(test)]
mod tests;
