//! Where a person sees the host: screens and serial ports.
//!
//! A display whose class is not VGA (0380) has no `boot_vga`. If the firmware's screen is on it through simpledrm or simplefb, the
//! frame buffer is one of a platform device, and sysfs does not say which function that is on.

use std::fs;

use super::{Use, Uses, names, text};
use crate::host::reserve::Host;

/// What `vtconsole` calls consoles on a frame buffer.
const FRAME_BUFFER: &str = "frame buffer";

pub fn read(host: &Host, uses: &mut Uses) {
    for name in names(&host.functions()) {
        let directory = host.functions().join(name);
        if text(&directory.join("boot_vga")) == "1"
            && let Ok(directory) = fs::canonicalize(directory)
        {
            uses.add(&directory, &Use::BootDisplay);
        }
    }
    let consoles = host.sysfs.join("class/vtconsole");
    let shown = names(&consoles).iter().map(|name| consoles.join(name)).any(|console| {
        text(&console.join("bind")) == "1" && text(&console.join("name")).contains(FRAME_BUFFER)
    });
    if shown {
        for name in names(&host.sysfs.join("class/graphics")) {
            add(host, uses, "class/graphics", &name);
        }
    }
    for name in text(&host.sysfs.join("class/tty/console/active")).split_whitespace() {
        add(host, uses, "class/tty", name);
    }
}

fn add(host: &Host, uses: &mut Uses, class: &str, name: &str) {
    if let Ok(directory) = fs::canonicalize(host.sysfs.join(class).join(name)) {
        uses.add(&directory, &Use::Console { name: name.to_owned() });
    }
}
