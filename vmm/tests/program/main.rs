//! The program as a user runs it: arguments, files, signals and terminals in; exit code, stdout and stderr out.
//!
//! Guests are the bare-metal images of package `guest`, on this machine's `/dev/kvm`. Without it, what needs it says
//! `SKIPPED` and why.

// clippy.toml's exception for tests does not reach their helpers in this folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_input;
mod bench;
mod bench_guest;
mod bhyve;
mod config_file;
mod config_ports;
mod ctl;
mod demo;
mod doctor;
mod documents;
mod exit_codes;
mod hostile;
mod list;
mod messages;
mod no_kvm;
mod physical_paths;
mod reserve;
mod show;
mod signals;
mod sizes;
mod slots;
mod standard_streams;
mod stats;
mod support;
mod terminal;
mod vcpu_options;
mod vms;
