//! The socket by which a running machine is asked to list, add and remove functions: `slotpass ctl`, and JSON lines
//! for programs, which `vmm/CTL.md` documents.
//!
//! [`protocol`] has what is said, [`Server`] hears it on the event loop, and [`client`] says it. Whoever carries requests
//! out gets each with an [`Answer`], to be given whenever there is one.

mod answer;
pub mod client;
mod connection;
pub(crate) mod path;
pub mod protocol;
mod server;
mod socket_file;
#[cfg(test)]
mod tests;

pub use answer::Answer;
pub use server::Server;
pub use socket_file::{SocketError, SocketFile};
