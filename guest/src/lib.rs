//! Bare-metal x86-64 guests that test themselves and what they are given, as ELF images.
//!
//! `build.rs` compiles them from source: `programs/` holds one folder for each, `runtime/` what they share, and
//! `runtime/shim/` the assembly under both. An image has a PVH entry (ELF note `XEN_ELFNOTE_PHYS32_ENTRY`) and needs
//! 4 MiB of RAM at 1 MiB, a page at 0x8000 if it starts further vCPUs, a 16550 at 0x3f8 and an exit port at 0xf4: a
//! write of v there ends the guest with exit code `(v << 1) | 1`. ACPI tables are used where there are any. QEMU
//! boots the images with `-kernel`.
//!
//! Rust code runs at CPL3, with 0 to 4 GiB identity mapped; port accesses and other privileged instructions go
//! through `int3` to the shim. So the guests run on hypervisors that interpret CPL0 code and know few instructions
//! there.
//!
//! Command lines are words between blanks. Numbers are decimal, or hexadecimal after `0x`; slots are
//! `bus:device:function`, `device:function` or `device`, in decimal. Values written to the exit port that all programs
//! share: 0x7c after a panic, 0x7d after a processor exception (a line that begins with `FAIL` says which), 0x7e if
//! reporting it failed.

/// Finds slotpass' simulated function, prints what it is, checks all it can do, and measures.
///
/// Words: `slot=B:D:F` (by default `0:8:0`), `iterations=N` (of each measurement, 1 to 4096, by default 500),
/// `cpus=N` (start vCPUs with local APIC ids below N; by default those that the MADT lists).
///
/// Ends with a power-off by ACPI, or, where that does not work, with 0 at the exit port. If a check fails, it prints a
/// line that begins with `FAIL` and names it, and the exit port gets its place in the list as printed, from 1; 0x70 if
/// there is no such function or its BARs are not as expected, 0x71 if a measurement failed.
///
/// Needs 64 MiB of memory; where there is RAM above 4 GiB, the end of it is used for DMA too.
pub const DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.elf"));

/// Drives QEMU's test devices, each named with its slot, in that order.
///
/// * `edu=B:D:F`: registers, factorial, DMA both ways (buffers below 256 MiB), MSI.
/// * `testdev=B:D:F`: pci-testdev's tests by memory and by port.
/// * `ivshmem=B:D:F`: writes a pattern to BAR2 of ivshmem-plain and reads it back: [`pattern::word`] with `seed=N` (by
///   default 1) at each of [`pattern::offsets`] with `step=N` (bytes, by default 65536), little endian. With
///   `at=ADDRESS` the BAR is moved there first. Prints the [`pattern::Checksum`] of those words in order.
/// * `poweroff`: power off by ACPI at the end, if nothing failed.
///
/// Prints `ok edu 0:8:2 ...` or `FAIL edu 0:8:2 ...` for each. Ends with 0 at the exit port if all passed, 1 if one
/// failed, 2 if a word means nothing.
pub const DEVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/devices.elf"));

/// Does what its command line says, word by word, and ends with 0 at the exit port after the last.
///
/// * `code=N`: N at the exit port.
/// * `poweroff`: power off by ACPI; if that does not work, 0 at the exit port.
/// * `reset`: resets by the FADT's register, otherwise by port 0xCF9, otherwise by the keyboard controller; 1 at the
///   exit port if it still runs.
/// * `reset=N`: resets until there have been N resets, then powers off. The count is in CMOS RAM, byte 0x40, which is
///   0 at first and must survive a reset.
/// * `triple-fault`, `panic`, `spin` (at CPL3), `halt` (with interrupts on).
/// * `echo`: prints `ready`, then sends back each line from the serial port as `echo LINE`, until one says `quit`.
/// * `probe-empty`: sees that absent functions of buses 0 to 3 read as all ones by CF8 and by ECAM, and so do ports
///   and addresses that nobody claims; `probe-empty=no-memory` leaves the addresses out. 1 at the exit port if not.
/// * `vcpus`: starts further vCPUs (those of the MADT, or with `cpus=N` local APIC ids below N), lets each work and
///   prints `ok vcpus N`.
///
/// 2 at the exit port if a word means nothing.
pub const EXIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exit.elf"));

/// What the guests write to memory, for hosts that look at it too. The guests are compiled from the same file.
#[path = "../runtime/pattern.rs"]
pub mod pattern;

// The parts of the runtime that need no machine: their tests run here.
#[cfg(test)]
#[path = "../runtime/bar.rs"]
pub mod bar;
#[cfg(test)]
#[path = "../runtime/capability.rs"]
pub mod capability;
#[cfg(test)]
#[path = "../runtime/command_line.rs"]
pub mod command_line;
#[cfg(test)]
#[path = "../runtime/sleep_type.rs"]
pub mod sleep_type;
#[cfg(test)]
#[path = "../runtime/slot.rs"]
pub mod slot;

// Never compiled here; this is how `cargo fmt` comes to the sources that build.rs compiles.
#[cfg(any())]
#[path = "../programs/demo/main.rs"]
mod demo;
#[cfg(any())]
#[path = "../programs/devices/main.rs"]
mod devices;
#[cfg(any())]
#[path = "../programs/exit/main.rs"]
mod exit;
#[cfg(any())]
#[path = "../runtime/lib.rs"]
mod runtime;
