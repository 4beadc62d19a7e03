//! The boot key of a SmartOS machine: the two files that its kernel gets as boot modules, and the lines that make its boot
//! loader load them.
//!
//! The files are `overlay/etc/ppt_aliases` and `overlay/etc/ppt_matches` on the key. GRUB has a [`menu`],
//! `boot/grub/menu.lst`; illumos' loader(7) has [`variables`], `boot/loader.conf` and what it is told beside,
//! `boot/loader.conf.local`.

pub mod menu;
pub mod variables;

/// Where the files are on the key, and the names that the kernel looks for.
pub const FILES: [(&str, &str); 2] =
    [("/overlay/etc/ppt_aliases", "etc/ppt_aliases"), ("/overlay/etc/ppt_matches", "etc/ppt_matches")];

/// Where the two files are on a key, in the order of [`FILES`].
pub type Paths = [String; 2];
