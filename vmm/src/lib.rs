//! The parts of the program `slotpass`, a minimal KVM VMM.
//!
//! [`machine::run`] is a guest from its description to its end. [`kvm`] has the hypervisor and what `passthru`'s ports
//! are on it, [`bus`] says who answers an access that exits, [`boot`] and [`acpi`] put a kernel and tables into
//! [`memory`] as [`layout`] has it, and [`cli`] is the command line. [`bhyve`] has the descriptions of another VMM.

pub mod acpi;
pub mod bench;
pub mod bhyve;
pub mod boot;
pub mod bus;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
pub mod control_socket;
pub mod doctor;
pub mod event_loop;
pub mod host;
pub mod kvm;
pub mod layout;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod page_times;
pub mod port_options;
pub mod ppt;
pub mod progress;
pub mod rom_file;
pub mod show;
pub mod signals;
pub mod slot_map;
pub mod start_times;
pub mod stats;
pub mod vcpu_options;
pub mod vms;
pub mod wording;
