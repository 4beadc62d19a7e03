//! Functions of an illumos host: its `ppt` driver, which holds them, and bhyve's `/dev/vmm`, which gives them to virtual
//! machines.
//!
//! [`Vm`] is the virtual machine, which somebody else made, [`PptFunction`] a function in it: opening binds it, dropping
//! unbinds it, and both reset it where it has FLR. The kernel puts its BARs into the guest and its messages into the guest's
//! local APICs by itself, so that a VMM's [`crate::ports::MemoryPort`] is only asked for traps, and its
//! [`crate::ports::InterruptPort`] for nothing.
//!
//! What `ppt` cannot do is in the [`Report`](crate::host::Report), or an [`OpenError`] before anything is bound:
//!
//! * the guest's memory must be wired;
//! * a function has at most 7 mappings, of whole pages of 4 KiB; memory that is not mapped is out of reach, except for the
//!   BAR that holds the MSI-X table;
//! * INTx is not delivered, so a function that interrupts needs MSI or MSI-X;
//! * a function is reset when it is bound and unbound, by FLR, and at no other time and in no other way;
//! * nobody tells of errors (AER), or that the host wants a function back;
//! * which masked vectors have something to signal is not told: the guest reads their pending bits as 0;
//! * the kernel of 2018 unmaps nothing until a function is unbound: BARs stay where the guest has them first. Nor does it
//!   turn MSI-X off: MSI is refused from then on, and what is signalled meanwhile comes when MSI-X is on again.
//!
//! * MSI-X is on in a function while the kernel has a vector armed, so that one whose only vector the guest masks has it off
//!   meanwhile.
//!
//! Everything goes through a [`sys::Sys`], so that it is the same code wherever the answers come from.

mod abi;
mod access;
mod device;
mod error;
mod file;
mod filter;
mod function;
mod open;
pub mod sys;
mod table_bar;
#[cfg(test)]
mod tests;
mod vm;

pub use error::{OpenError, Reason, Refusal};
pub use function::PptFunction;
pub use vm::{GuestMemory, Interface, Vm};
