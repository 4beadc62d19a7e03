//! Where everything lies in the guest: memory map and ports.
//!
//! | guest-physical address | what |
//! |---|---|
//! | 0 to 3 GiB at most | RAM |
//! | 0xa0000 to 0xfffff | legacy hole: inside RAM, reserved in the memory map, ACPI tables at 0xe0000 |
//! | 0xc000_0000 to 0xdfff_ffff | 32-bit windows of the host bridges |
//! | 0xe000_0000 to 0xefff_ffff | ECAM, buses 0 to 255 |
//! | 0xfec0_0000 | I/O APIC |
//! | 0xfed0_0000 | KVM's TSS and identity map pages (0xfeff_c000, four pages) |
//! | 0xfee0_0000 | local APICs |
//! | 4 GiB on | the rest of RAM, then the 64-bit windows of the host bridges |

/// End of RAM below 4 GiB, and start of the 32-bit windows.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// 32-bit windows of the host bridges.
pub const WINDOW32: std::ops::Range<u64> = LOW_RAM_END..0xe000_0000;
/// ECAM: 1 MiB for each of the buses 0 to 255 (PCIe 6.0 §7.2.2).
pub const ECAM: std::ops::Range<u64> = 0xe000_0000..0xf000_0000;
/// RAM that does not fit below [`LOW_RAM_END`] starts here.
pub const HIGH_RAM_START: u64 = 1 << 32;
/// The I/O APIC's registers, where KVM has them.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APIC's registers.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// One page that KVM needs on Intel for the real-mode identity map; the task state's three follow it.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Three pages that KVM needs on Intel for the task state.
pub const KVM_TSS: u64 = KVM_IDENTITY_MAP + 0x1000;

/// Start of the range that the memory map reserves below 1 MiB.
pub const LEGACY_HOLE: std::ops::Range<u64> = 0xa_0000..0x10_0000;
/// ACPI tables, with the RSDP at the very start: it must lie on a 16-byte boundary in 0xe0000 to 0xfffff to be
/// found by a guest whose loader does not hand it over (ACPI 6.5 §5.2.5.1).
pub const ACPI_TABLES: std::ops::Range<u64> = 0xe_0000..0x10_0000;

/// Ports of the host bridges' I/O windows: above the fixed devices' and below 64 Ki.
pub const WINDOW_IO: std::ops::Range<u64> = 0x1000..0x1_0000;

/// ACPI fixed hardware (ACPI 6.5 §4.8): PM1 event block, 4 bytes.
pub const PM1_EVENT_PORT: u16 = 0x600;
/// PM1 control block, 2 bytes.
pub const PM1_CONTROL_PORT: u16 = 0x604;
/// PM timer, 4 bytes, 3.579545 MHz.
pub const PM_TIMER_PORT: u16 = 0x608;
/// FADT RESET_REG. Outside 0xcf8 to 0xcfb, where a coalesced CONFIG_ADDRESS write would swallow it.
pub const RESET_PORT: u16 = 0x610;
/// Value that, written to [`RESET_PORT`], resets the guest.
pub const RESET_VALUE: u8 = 0x01;
/// SLP_TYPa of `\_S5`: power-off.
pub const SLEEP_TYPE_S5: u8 = 5;
/// GSI of the ACPI system control interrupt.
pub const SCI_GSI: u8 = 9;

/// First serial port (COM1), 8 bytes.
pub const SERIAL_PORT: u16 = 0x3f8;
/// GSI of the first serial port.
pub const SERIAL_GSI: u8 = 4;
/// RTC index and data.
pub const RTC_PORT: u16 = 0x70;
/// Keyboard controller's command port; only its reset pulse is there.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;
/// A write of v ends slotpass with exit code `v << 1 | 1`, as QEMU's isa-debug-exit does.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;
/// CONFIG_ADDRESS and CONFIG_DATA.
pub const CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// GSIs 0 to 23 are the I/O APIC's pins; message routes come after them.
pub const IO_APIC_PINS: u32 = 24;
