//! The host's PCI functions: how its user names them, the files that say which go to guests, and the list of them.

pub mod compatible;
pub mod device_records;
mod header;
pub mod holders;
pub mod list;
pub mod physical_path;
pub mod reserve;
pub mod sriov;
