//! What is known of a function and not to be read from its registers, in sentences.

use passthru::function::quirks::{self, Quirks};

/// One sentence for each quirk of the functions with these ids that applies.
pub fn sentences(vendor: u16, device: u16, class: u32) -> Vec<String> {
    told(&quirks::of(vendor, device, class))
}

fn told(quirks: &Quirks) -> Vec<String> {
    let flags = [
        (quirks.no_flr, "its function-level reset does not work and is not used"),
        (quirks.no_intx, "its INTx does not work; the guest does not see it"),
        (quirks.intx_unmaskable, "its INTx cannot be disabled; its line must be its own"),
        (quirks.rom_hangs, "its expansion ROM hangs guests; the guest does not see it"),
        (
            quirks.msix_shared,
            "it has registers in the pages of its MSI-X structures; the guest's reads of these exit",
        ),
    ];
    let flags = flags.iter().filter(|(applies, _)| *applies).map(|(_, text)| (*text).to_owned());
    let mirrors = quirks.config_mirror.iter().map(|mirror| {
        let end = mirror.offset.saturating_add(mirror.len);
        format!(
            "BAR {} {:#x}..{end:#x} is its configuration space again; the guest finds its own there",
            mirror.bar, mirror.offset
        )
    });
    let windows = quirks.config_window.iter().map(|window| {
        format!(
            "BAR {} {:#x} and {:#x} lead to its configuration space; the guest finds its own there",
            window.bar, window.address, window.data
        )
    });
    let table = quirks.msix_window.map(|window| {
        format!(
            "BAR {} {:#x} and {:#x} lead to its MSI-X table; the guest finds its own there",
            window.bar, window.address, window.data
        )
    });
    let pending = quirks.msix_pending.map(|offset| {
        format!("its MSI-X pending bits are at {offset:#x}, where its capability does not have them")
    });
    flags.chain(mirrors).chain(windows).chain(table).chain(pending).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_with_and_without() {
        assert_eq!(sentences(0x1b36, 0x0010, 0x01_0802), Vec::<String>::new());
        assert_eq!(
            sentences(0x1022, 0x149c, 0x0c_0330),
            ["its function-level reset does not work and is not used"]
        );
        let nvidia = sentences(0x10de, 0x1d13, 0x03_0000);
        assert!(nvidia.iter().any(|text| text.starts_with("BAR 0 0x88000..0x89000 ")), "{nvidia:?}");
    }
}
