//! What the guest reads in the pages of the MSI-X table and of the pending bits, whichever way it wrote there.

use runtime::function::DECODE_MEMORY;
use runtime::msix::MsiX;
use runtime::window::Window;
use runtime::{Check, Text, apic, ensure_equal};

use crate::Demo;

/// Entries that no other check has armed when this one runs: their vectors stay masked.
const VECTOR: u16 = 2;
const BYTES: usize = 32;
/// In BAR 4.
const PENDING: u64 = 0x8000;

/// Two table entries, as they were written.
struct Model {
    table: Window,
    bytes: [u8; BYTES],
}

impl Model {
    /// Writes by one instruction.
    fn write(&mut self, offset: usize, bytes: usize, value: u64) {
        self.bytes[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.table.write_any(offset as u64, bytes as u64, value);
    }

    /// Reads everything in accesses of each width.
    fn check(&self, table: &Window, when: &str) -> Check {
        for bytes in [1, 2, 4, 8] {
            for offset in (0..BYTES).step_by(bytes) {
                let mut wanted = [0; 8];
                wanted[..bytes].copy_from_slice(&self.bytes[offset..offset + bytes]);
                let read = table.read_any(offset as u64, bytes as u64);
                ensure_equal!(read, u64::from_le_bytes(wanted), "{bytes} bytes at {offset:#x} {when}");
            }
        }
        Ok(())
    }
}

pub fn values(demo: &Demo) -> Check<Text> {
    let (msix, tables) = (MsiX::of(demo.function)?, demo.device.tables);
    let place = u64::from(VECTOR) * 16;
    let table = msix.table().part(place, BYTES as u64);
    for vector in [VECTOR, VECTOR + 1] {
        msix.program(vector, apic::message(demo.boot.apic_id, 0x40), true);
    }
    let bytes = core::array::from_fn(|at| table.read8(at as u64));
    let mut model = Model { table, bytes };
    // The dwords at 0xc and 0x1c mask the vectors with their bit 0.
    for (offset, bytes, value) in [
        (0x0, 4, 0xfee0_1004),
        (0x4, 1, 0x11),
        (0x7, 1, 0x12),
        (0x8, 2, 0x1314),
        (0xa, 2, 0x1516),
        (0xd, 1, 0x17),
        (0xc, 4, 0x1),
        (0x10, 8, 0x1819_1a1b_fee0_2008),
        (0x18, 8, 0x1_1c1d_1e1f),
        (0x1, 2, 0x2021),
        (0x3, 4, 0x2223_2425),
        (0x13, 8, 0x2627_2829_2a2b_2c2d),
    ] {
        model.write(offset, bytes, value);
        model.check(&table, "after a write")?;
    }
    tables.write64(PENDING, u64::MAX);
    ensure_equal!(tables.read64(PENDING), 0u64, "pending bits, which cannot be written");
    ensure_equal!(tables.read64(PENDING + 0x800), 0u64, "what is beside the pending bits");

    demo.function.set_command(DECODE_MEMORY, false);
    let off = [table.read32(0), tables.read32(PENDING)];
    demo.function.set_command(DECODE_MEMORY, true);
    ensure_equal!(off[0] & off[1], u32::MAX, "table and pending bits with memory decode off");
    model.check(&table, "with decode on again")?;

    // To where BAR 2 is, which goes to RAM meanwhile, where it does not answer.
    let memory = demo.device.memory;
    demo.function.move_bar(2, 0)?;
    demo.function.move_bar(4, memory.address())?;
    let moved = model.check(&memory.part(place, BYTES as u64), "after its BAR was moved");
    let before = table.read32(0);
    demo.function.move_bar(4, tables.address())?;
    demo.function.move_bar(2, memory.address())?;
    moved?;
    ensure_equal!(before, u32::MAX, "the table where it was before");
    model.check(&table, "after its BAR came back")?;
    for vector in [VECTOR, VECTOR + 1] {
        msix.program(vector, (0, 0), true);
    }
    Ok(Text::new(format_args!("8 to 64 bits, aligned or not; decode off; moved")))
}
