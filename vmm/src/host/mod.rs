//! The host's PCI functions: how its user names them, the files that say which go to guests, and the list of them.

pub mod compatible;
pub mod device_records;
pub mod file_text;
pub mod holders;
pub mod id_text;
pub mod line_edit;
pub mod list;
pub mod physical_path;
pub mod ppt_aliases;
pub mod ppt_matches;
pub mod replace_file;
pub mod reserve;
