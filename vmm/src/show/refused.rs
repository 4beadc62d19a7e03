//! What of a function no guest gets, beyond registers.

use passthru::host::vfio::sysfs;
use serde::Serialize;

/// Something that is refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What it is, for programs.
    what: What,
    /// Why, for a person.
    pub why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// The function as a whole.
    Function,
    /// The addresses of VGA below 1 MiB and its ports.
    VgaRanges,
}

/// What is refused of a function of the host at this address; nothing of a simulated one.
pub fn of(name: &str, vendor: u16, class: u32) -> Vec<Refused> {
    let Ok(address) = name.parse() else { return Vec::new() };
    let kinds = [
        (
            sysfs::is_integrated_graphics(address, u32::from(vendor), class),
            Refused { what: What::Function, why: sysfs::INTEGRATED_GRAPHICS },
        ),
        (sysfs::is_vga(class), Refused { what: What::VgaRanges, why: sysfs::VGA_RANGES }),
    ];
    kinds.into_iter().filter(|(applies, _)| *applies).map(|(_, refused)| refused).collect()
}
