//! The files by which PCI functions are reserved for guests, as illumos has them and Linux hosts can have them too.
//!
//! [`ppt_matches`] says which functions may be given to guests, [`ppt_aliases`] which are; [`boot_key`] is about what makes
//! SmartOS, which boots from a key, load both. They are files that people write: each is read as bytes, line by line, and what
//! their readers in illumos would skip silently is a finding with its line's number. A change is a list of
//! [`line_edit::LineEdit`]s, which leaves all other bytes as they are, and is written by [`replace_file`], as a whole or not at
//! all.
//!
//! Nothing in this package asks the host about its devices, and all of it works on Linux and on illumos.

pub mod boot_key;
pub mod file_error;
pub mod file_text;
pub mod id_text;
pub mod line_edit;
pub mod path_form;
pub mod ppt_aliases;
pub mod ppt_matches;
pub mod replace_file;
