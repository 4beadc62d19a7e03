//! What is said of BARs and of the parts of them that are trapped.

use passthru::function::pieces::{Backing, Reason};
use passthru::pci::bar::BarKind;

/// A kind of BAR, for programs.
pub fn kind_name(kind: BarKind) -> &'static str {
    match kind {
        BarKind::Io => "io",
        BarKind::Memory32 { .. } => "memory32",
        BarKind::Memory64 { .. } => "memory64",
    }
}

/// How a part of a BAR reaches the guest, and why not without exits, for a person.
pub fn how(backing: Backing, bytes: u64) -> String {
    match backing {
        Backing::Mapped => "mapped".to_owned(),
        Backing::ReadOnly(reason) => format!("reads take no exit, writes are trapped: {}", why(reason)),
        // Why they are not read without an exit.
        Backing::Trapped(reason @ (Reason::MsixTable | Reason::MsixPending)) => match bytes {
            0..4096 => format!("trapped: {}, in less than a page", why(reason)),
            _ => format!("trapped: {}, and the guest sees no MSI-X", why(reason)),
        },
        Backing::Trapped(reason) => format!("trapped: {}", why(reason)),
    }
}

/// Why a part of a BAR is trapped, for a person.
fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Io => "I/O ports cannot be mapped",
        Reason::NotMappable => "the host cannot map it",
        Reason::SubPage => "smaller than a page, which is not its own",
        Reason::MsixTable => "holds the MSI-X table",
        Reason::MsixPending => "holds MSI-X pending bits",
        Reason::MsixShared => {
            "holds MSI-X structures, and has room for registers of the function's own beside them"
        }
        Reason::PendingUntold => "holds MSI-X pending bits, of which the host does not tell by itself",
        Reason::Asked => "holds MSI-X structures, and msix-page=trap asks for it",
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
        Reason::MsixShared => {
            "registers in the page of MSI-X structures, in front of them or known (slotpass show)"
        }
        Reason::PendingUntold => {
            "shares its page with MSI-X pending bits, for which the host is asked each time"
        }
        Reason::Asked => {
            "shares its page with MSI-X structures; without msix-page=trap reads of these take no exit"
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
