//! What has to be changed for functions to be reserved or released, and whether that may be.

mod apply;
mod release;
mod reserve;

pub use apply::{Applied, apply};
pub use release::{Release, release};
pub use reserve::{Reserve, reserve};

use passthru::pci::HostAddress;

use super::change::Change;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    /// What a user is told beside.
    pub notes: Vec<String>,
    /// The functions that it is about.
    pub functions: Vec<HostAddress>,
}

/// Another function of a group that has to be reserved with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The function.
    pub address: HostAddress,
    /// Who has it.
    pub driver: String,
    /// The function that was asked for.
    pub with: HostAddress,
}

impl Other {
    /// Who agreed to `before` agreed to all of `now`.
    pub fn are_agreed(before: &[Other], now: &[Other]) -> bool {
        now.iter().all(|other| before.iter().any(|agreed| agreed.address == other.address))
    }
}

#[cfg(test)]
mod tests;
