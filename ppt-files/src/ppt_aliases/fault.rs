//! Aliases that no function of PCI has.

use super::Reason;
use crate::path_form::PathFault;
use crate::{id_text, path_form};

/// Why this alias binds nothing, if so.
pub fn of(alias: &[u8]) -> Option<Reason> {
    let owned = || alias.to_owned();
    if alias.is_empty() {
        return Some(Reason::Empty);
    }
    if alias.starts_with(b"/devices/") {
        return Some(Reason::DevicesPrefix { alias: owned() });
    }
    if alias.starts_with(b"/") {
        let last = alias.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        return match path_form::fault(alias)? {
            PathFault::Part { part } if part == last && part.contains(&b':') => {
                Some(Reason::MinorName { alias: owned() })
            }
            fault => Some(Reason::Path { alias: owned(), fault }),
        };
    }
    let no_name = || Some(Reason::NoName { alias: owned() });
    let Some(name) = alias.strip_prefix(b"pciex").or_else(|| alias.strip_prefix(b"pci")) else {
        return no_name();
    };
    if let Some(code) = name.strip_prefix(b"class,") {
        return if is_class(code) { None } else { no_name() };
    }
    // VVVV,DDDD and up to three of .SVVV.SDDD.RR; newer systems end names with what the first two are.
    let (name, has_suffix) = match name.strip_suffix(b",s").or_else(|| name.strip_suffix(b",p")) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let mut halves = name.splitn(2, |byte| *byte == b',');
    let (Some(vendor), Some(devices)) = (halves.next(), halves.next()) else { return no_name() };
    let parts: Vec<&[u8]> = [vendor].into_iter().chain(devices.split(|byte| *byte == b'.')).collect();
    if parts.len() > 5 {
        return no_name();
    }
    if has_suffix && (parts.len() > 2 || alias.starts_with(b"pciex")) {
        return Some(Reason::Suffix { alias: owned() });
    }
    let fault = parts.iter().find_map(|part| {
        let fault = id_text::fault(part)?;
        Some(Reason::Id { alias: owned(), id: part.to_vec(), fault })
    });
    // Of one more part or of three the last is the revision.
    let revision = parts.last().filter(|revision| matches!(parts.len(), 3 | 5) && revision.len() > 2);
    fault.or_else(|| revision.map(|id| Reason::Revision { alias: owned(), id: id.to_vec() }))
}

/// Class codes are padded, with or without the programming interface.
fn is_class(code: &[u8]) -> bool {
    matches!(code.len(), 4 | 6) && code.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
