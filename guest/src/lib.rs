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

/// Measures single accesses by the time stamp counter, and prints every sample.
///
/// Words: measurements (by default all of the first table), each made as often as it is named, in that order; `slot=B:D:F`
/// (the function, by default `0:8:0`), `iterations=N` (samples of each, 1 to 65536, by default 1000), `repeats=N` (samples
/// of what takes long, by default 10).
///
/// | measurement | what |
/// |---|---|
/// | `empty` | two readings of the counter and nothing between, as around an access to memory |
/// | `empty-port` | the same as around an access to ports, which is timed at CPL0 |
/// | `pio-read`, `pio-write` | a port that nobody claims, 4 bytes as all accesses here |
/// | `mmio-read`, `mmio-write` | an address that nobody claims |
/// | `cf8-write-address` | the write to port 0xCF8 |
/// | `cf8-read`, `cf8-read-absent`, `cf8-write` | 0xCF8 and 0xCFC: vendor id, the same of an empty slot of the bus, and a write of what the register at 0x3C holds |
/// | `ecam-read`, `ecam-read-absent`, `ecam-write` | the same by ECAM |
/// | `ecam-read-live` | by ECAM: command and status, of which the device knows the latter |
/// | `bar-read` | the first page of a memory BAR without MSI-X structures; the first dword of it, or `bar-read=BAR:OFFSET` |
/// | `trapped-read`, `trapped-write` | a register of the simulated function that is trapped, or `=BAR:OFFSET` of any; what is written is what it held |
/// | `msix-read`, `pba-read` | the data of the first MSI-X entry; the first pending bits |
/// | `msix-write-same` | writes to the first MSI-X entry the data that it holds |
/// | `msix-mask-unmask` | both writes, of a vector that is armed |
/// | `doorbell` | the write that raises an interrupt (simulated function, QEMU's edu), which is held back meanwhile |
/// | `interrupt` | from that write to the first instruction of the handler, while the vCPU spins |
/// | `enable-at-once`, `enable-one-by-one` | all MSI-X vectors, or `=N`, made live: together under the function mask, or one after the other as Linux does; takes long |
///
/// | for hosts that have this, with an address in the word | what |
/// |---|---|
/// | `ro-read=ADDRESS`, `ro-write=ADDRESS` | a read-only memory slot |
/// | `coalesced-write=PORT` | a write of four bytes that the kernel collects |
/// | `ioeventfd-write=ADDRESS` | a write of four bytes that signals an eventfd |
/// | `irqfd=ADDRESS` | from such a write to the handler, where the eventfd raises a GSI whose message has processor vector 0x60, or `vector=N` |
///
/// Prints `bench-rate R`, R being the counter's cycles in a microsecond, and for each measurement one line:
///
/// * `bench NAME cycles V*C V*C ...`: C samples of V cycles; the values ascend, and `*1` is left out. There are as many
///   samples as iterations or repeats. Nothing is taken off. Times of single accesses are below 2^32 cycles.
/// * `bench NAME absent REASON`: the machine or the slot has no such thing.
///
/// A register of a BAR is written only if a word names it or the device is known to be the simulated function or an edu.
/// Ends with a power-off by ACPI, or, where that does not work, with 0 at the exit port; after a line that begins with
/// `FAIL`, with 1 if an interrupt did not come or MSI-X is broken, with 2 if a word means nothing.
pub const BENCH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench.elf"));

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
/// * `doorbell=B:D:F`: ivshmem-doorbell with a peer on the host, which rings each vector until the guest rings it at the
///   same one. The peer's id is 1, or `peer=ID`.
/// * `intx=B:D:F`: level interrupts of an edu by the I/O APIC: alone, held back by the INTx disable bit, in turns with MSI.
///   The GSI is as slotpass wires it, or `gsi=N`.
/// * `shares=B:D:F,B:D:F`: two edus whose INTx pins are on one GSI, as those of devices eight apart are.
/// * `flr=B:D:F`: any function that resets itself (FLR or AF-FLR): all-ones while it does, its registers as after power-on
///   then.
/// * `power=B:D:F`: any function with power management: to D3hot and back.
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
/// * `reset-and-spin=N`, `reset-and-halt=N`: the same by port 0xCF9, whereafter the guest spins, or halts, with interrupts off:
///   it does nothing more that a hypervisor would notice.
/// * `config-race=N`: all vCPUs use CF8/CFC at once, under a lock: all but the last read N registers of different functions and
///   see that they are what ECAM has; the last writes CF8 a thousand times in a row, and never CFC, N / 16 times. Needs two
///   functions and two vCPUs. 1 at the exit port if a register is not right.
/// * `triple-fault`, `panic`, `spin` (at CPL3), `halt` (with interrupts on).
/// * `echo`: prints `ready`, then sends back each line from the serial port as `echo LINE`, until one says `quit`.
/// * `probe-empty`: sees that absent functions of buses 0 to 3 read as all ones by CF8 and by ECAM, and so do ports
///   and addresses that nobody claims; `probe-empty=no-memory` leaves the addresses out. 1 at the exit port if not.
/// * `renumber`: gives the bus behind the first root port that has a function other numbers, and sees that the function is
///   there by CF8 and by ECAM, and nowhere else. 1 at the exit port if not.
/// * `msix=B:D:F`: sees that the MSI-X table and the pending bits of slotpass' simulated function there are as after power-on,
///   and leaves them with a vector that pends and one that is live. 1 at the exit port if not.
/// * `power-button`: prints `power-button: ready`, then waits until ACPI's fixed power button is pressed. 1 at the exit port
///   if there is none, or it is not as it should be.
/// * `lines=N`: prints N lines, and `ok lines`.
/// * `vcpus`: starts further vCPUs (those of the MADT, or with `cpus=N` local APIC ids below N), lets each work and
///   prints `ok vcpus N`.
///
/// 2 at the exit port if a word means nothing.
pub const EXIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exit.elf"));

/// Attacks what it was given: from all vCPUs at once it writes random values, of every width, to the configuration space of
/// all functions by CF8/CFC and ECAM, to their BARs, to what is in these, and to slots without a function.
///
/// * `accesses=N`: of all vCPUs together, by default 300000.
/// * `seed=S`: the same seed gives each vCPU the same accesses; by default 1.
/// * `resets=R`: at most so many for each million of accesses put a function into D3hot or reset it; by default 200.
/// * `bars=P`: per cent of the accesses that go to memory BARs, by default 80 and at most 99.
/// * `guard=MIB`: memory that must stay as it is, by default 16; BARs are put on top of it.
/// * `last-bus=N`: functions are looked for on buses 0 to N, by default 8.
/// * `dma`: bus mastering may go on, so devices write to random memory. This may be the guest's own end.
/// * `cpus=N`: as for [`DEMO`].
///
/// It keeps from what would end itself and not the hypervisor: messages that are SMI, NMI, INIT or an exception's vector,
/// bus mastering, other bus numbers behind bridges, and of QEMU's edu the DMA engine.
///
/// At the end every function must be there with its id and take its BARs back, and the guard must be untouched. Prints
/// `target SLOT ID` for each function and `ok hostile accesses N resets R interrupts I`, and powers off. Otherwise a line
/// that begins with `FAIL`, and 1 at the exit port; 2 if a word means nothing.
pub const HOSTILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostile.elf"));

/// Uses all MSI-X vectors of an NVMe drive or of slotpass' simulated function, and sees that each interrupt comes exactly
/// once.
///
/// Words: `slot=B:D:F` (by default `0:8:0`), `vectors=N` (of the function's, 2 to 2048, by default all), `some` (vectors
/// that never come are counted, and are no failure), `twice=N` (up to N vectors of a step may come twice, by default none;
/// each is printed), and steps, in that order:
///
/// * `at-once`: all entries are written under the function mask, which is then taken away.
/// * `one-by-one`: entries are unmasked one after the other.
/// * `pending`: vectors that fire while they are masked show in the pending bits, and come once when unmasked.
///
/// Prints `ok at-once 2048 vectors, delivered 2048`, or likewise, and powers off; otherwise a line that begins with `FAIL`,
/// and 1 at the exit port, or 2 if a word means nothing.
pub const VECTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vectors.elf"));

/// What the guests write to memory, for hosts that look at it too. The guests are compiled from the same file.
#[path = "../runtime/pattern.rs"]
pub mod pattern;

/// How [`BENCH`] prints samples, for hosts that read them.
#[path = "../programs/bench/runs.rs"]
pub mod runs;

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

// And those parts of the programs.
#[cfg(test)]
#[path = "../programs/hostile/budget.rs"]
pub mod budget;
#[cfg(test)]
#[path = "../programs/hostile/message.rs"]
pub mod message;

// Never compiled here; this is how `cargo fmt` comes to the sources that build.rs compiles.
#[cfg(any())]
#[path = "../programs/bench/main.rs"]
mod bench;
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
#[path = "../programs/hostile/main.rs"]
mod hostile;
#[cfg(any())]
#[path = "../runtime/lib.rs"]
mod runtime;
#[cfg(any())]
#[path = "../programs/vectors/main.rs"]
mod vectors;
