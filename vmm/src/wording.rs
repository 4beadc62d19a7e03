//! What is said of BARs and of the parts of them that are trapped.

use passthru::function::pieces::Reason;
use passthru::pci::bar::BarKind;

/// A kind of BAR, for programs.
pub fn kind_name(kind: BarKind) -> &'static str {
    match kind {
        BarKind::Io => "io",
        BarKind::Memory32 { .. } => "memory32",
        BarKind::Memory64 { .. } => "memory64",
    }
}

/// Why a part of a BAR is trapped, for a person.
pub fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Io => "I/O ports cannot be mapped",
        Reason::NotMappable => "the host cannot map it",
        Reason::SubPage => "smaller than a page, which is not its own",
        Reason::MsixTable => "holds the MSI-X table",
        Reason::MsixPending => "holds MSI-X pending bits",
        Reason::Limit => "the host allows no more mappings",
        Reason::Failed => "mapping it failed",
        Reason::Rom => "expansion ROMs are read once, so not mapped",
        Reason::Quirk => "holds registers that must not reach the function",
        Reason::Unanswered => "the function stopped answering there",
    }
}

/// What accesses to such a part come from, and what to do if there are many.
pub fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Io => "I/O ports always exit; let the driver use a memory BAR if it can",
        Reason::NotMappable => "the host's driver keeps it; every access is a system call",
        Reason::SubPage => {
            "shares its page with something else of the host; let the host align BARs to pages \
                            (pci=resource_alignment=)"
        }
        Reason::MsixTable => {
            "shares its page with the MSI-X table: vectors masked often, or registers beside it"
        }
        Reason::MsixPending => {
            "shares its page with the MSI-X pending bits: polled, or registers beside them"
        }
        Reason::Limit => "the host's limit on mappings is reached; fewer functions in this guest help",
        Reason::Failed => "its mapping failed; slotpass said why when it did (--log)",
        Reason::Rom => {
            "the expansion ROM, which is read once or twice; a driver that reads it often should copy it"
        }
        Reason::Quirk => "shares its page with registers that must not reach the function (slotpass show)",
        Reason::Unanswered => "the function stopped answering; slotpass said so when it did (--log)",
    }
}

/// Bytes as a person writes them.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024 && value % 1024 == 0 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_their_unit() {
        for (bytes, text) in [
            (32, "32 B"),
            (1024, "1 KiB"),
            (1536, "1536 B"),
            (1 << 20, "1 MiB"),
            (32 << 30, "32 GiB"),
            (0, "0 B"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
