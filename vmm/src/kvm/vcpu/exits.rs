//! How often a vCPU left guest mode, and why.

/// Exits from guest mode to this program, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exits {
    /// Reads of I/O ports.
    pub io_in: u64,
    /// Writes of I/O ports.
    pub io_out: u64,
    /// Reads of memory addresses without memory.
    pub mmio_read: u64,
    /// Writes of memory addresses without memory, or with memory that is read-only.
    pub mmio_write: u64,
    /// HLT; KVM handles it itself while the interrupt controllers are in the kernel.
    pub hlt: u64,
    /// A signal arrived.
    pub interrupted: u64,
    /// Anything else.
    pub other: u64,
}

impl Exits {
    /// Adds another vCPU's.
    pub fn merge(&mut self, other: &Exits) {
        self.io_in += other.io_in;
        self.io_out += other.io_out;
        self.mmio_read += other.mmio_read;
        self.mmio_write += other.mmio_write;
        self.hlt += other.hlt;
        self.interrupted += other.interrupted;
        self.other += other.other;
    }
}
