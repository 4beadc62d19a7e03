//! `/etc` of the machine, which is the host's and cannot be written.

use crate::{Failure, Machine};

impl Machine<'_> {
    /// Puts a copy of `/etc` in its place that can be written, and is forgotten with the machine. Lasts for all commands that
    /// follow.
    pub fn own_etc(&mut self) -> Result<(), Failure> {
        self.command(
            "an /etc of its own",
            "mkdir /run/etc\n\
             # What cannot be copied (a file that goes away meanwhile) is not needed.\n\
             cp -a /etc/. /run/etc 2>/dev/null || true\n\
             rm -f /run/etc/ppt_aliases /run/etc/ppt_matches\n\
             busybox mount -o bind /run/etc /etc\n",
        )?;
        Ok(())
    }
}
