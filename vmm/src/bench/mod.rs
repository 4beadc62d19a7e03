//! What accesses and interrupts cost: a guest of slotpass' own measures them (`guest::BENCH`), under slotpass, and under
//! others to compare with.

pub mod error;
pub mod floor;
mod guest_text;
pub mod printed;
pub mod samples;
