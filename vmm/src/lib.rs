//! To be written.

pub mod acpi;
pub mod boot;
pub mod bus;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
pub mod event_loop;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod signals;
pub mod slot_map;
pub mod stats;
