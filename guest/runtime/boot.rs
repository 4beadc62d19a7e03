//! From the shim to the program's main function. What the loader says is in the PVH start info (Xen's
//! `public/arch-x86/hvm/start_info.h`).

use crate::acpi::Acpi;
use crate::command_line::CommandLine;
use crate::memory::{MemoryMap, Region};
use crate::power::Outcome;
use crate::window::Window;
use crate::{apic, cpus, power, serial, time};

const START_MAGIC: u32 = 0x336e_c578;
/// The rest of a longer command line is cut off.
const LONGEST_COMMAND_LINE: usize = 2048;

unsafe extern "C" {
    static start_info_address: u64;
}

unsafe extern "Rust" {
    fn program_main(boot: &Boot) -> Outcome;
}

/// What a program is given.
pub struct Boot<'a> {
    pub command_line: CommandLine<'a>,
    pub memory: MemoryMap,
    /// `None` if the loader names no RSDP, or it is broken.
    pub acpi: Option<Acpi>,
    /// Local APIC id of the vCPU that runs the program.
    pub apic_id: u8,
}

/// Called by the shim on each vCPU's own stack; 0 is the one that the loader started.
#[unsafe(no_mangle)]
extern "C" fn cpu_main(index: u32) -> ! {
    if index != 0 {
        cpus::serve(index);
    }
    serial::set_up();
    apic::set_up();

    // SAFETY: the shim has written it and nobody writes it again.
    let start_info = unsafe { (&raw const start_info_address).read() };
    let info = Window::ram(start_info, 56);
    assert_eq!(info.read32(0), START_MAGIC, "no PVH start info at {start_info:#x}");
    let mut text = [0; LONGEST_COMMAND_LINE];
    let boot = Boot {
        command_line: CommandLine::new(copy_command_line(info.read64(24), &mut text)),
        memory: memory_map(&info),
        acpi: Acpi::find(info.read64(32)),
        apic_id: apic::id(),
    };
    time::set_up();
    // SAFETY: `program!` has defined it with this signature.
    let outcome = unsafe { program_main(&boot) };
    power::end(&boot, outcome)
}

fn copy_command_line(address: u64, text: &mut [u8]) -> &str {
    let mut length = 0;
    if address != 0 {
        let line = Window::ram(address, text.len() as u64);
        for (offset, byte) in text.iter_mut().enumerate() {
            *byte = line.read8(offset as u64);
            if *byte == 0 {
                break;
            }
            length = offset + 1;
        }
    }
    let text = &text[..length];
    match core::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or(""),
    }
}

fn memory_map(info: &Window) -> MemoryMap {
    let (address, count) = if info.read32(4) >= 1 { (info.read64(40), info.read32(48)) } else { (0, 0) };
    let count = if address == 0 { 0 } else { u64::from(count.min(1024)) };
    let entries = Window::ram(address, count * 24);
    MemoryMap::new((0..count).map(|n| Region {
        address: entries.read64(n * 24),
        length: entries.read64(n * 24 + 8),
        kind: entries.read32(n * 24 + 16),
    }))
}
