//! What an access to a function makes necessary. The core decides; [`crate::attached`] carries it out.

use super::registers::ConfigWrite;
use crate::host::{MessageKind, VectorChange};
use crate::pci::Space;

/// One thing to be done, in the order in which they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write to the function's own configuration space.
    WriteHost(ConfigWrite),
    /// BARs answer somewhere else, or no longer.
    Place(Vec<Placement>),
    /// A kind of vectors is to be on, if it is not yet, so many of them, and these of them armed or masked.
    SetVectors(MessageKind, u16, Vec<VectorChange>),
    /// All vectors of a kind are to be taken down.
    DisableVectors(MessageKind),
    /// INTx is to be delivered, or no longer.
    SetIntx(bool),
    /// The guest asks for a reset of the function. Its own view is reset already, and nothing is mapped or armed.
    Reset,
}

/// Where a BAR answers from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// BAR 0 to 5.
    pub bar: u8,
    /// Memory or I/O.
    pub space: Space,
    /// Bytes.
    pub size: u64,
    /// First address; nothing while decoding is off.
    pub base: Option<u64>,
}
