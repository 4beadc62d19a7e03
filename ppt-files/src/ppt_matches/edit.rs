//! Adding and removing an entry.

use super::{Finding, PptMatches, Reason};
use crate::line_edit::LineEdit;

/// Before a line that this program adds: what a user wrote stays when a device is released.
const MARK: &str = "# slotpass:";

impl PptMatches {
    /// What adds the entry; nothing if another line says the same. An entry that would match nothing is a finding.
    pub fn add(&self, entry: &str) -> Result<Vec<LineEdit>, Finding> {
        let none = || Finding { line: 1, text: entry.to_owned(), reason: Reason::NoEntry };
        // A newline would make a second line of it.
        if entry.contains(char::is_control) {
            return Err(none());
        }
        let parsed = PptMatches::parse(entry.as_bytes());
        if let Some(finding) = parsed.findings.into_iter().next() {
            return Err(finding);
        }
        let Some(wanted) = parsed.lines.into_iter().next().and_then(|line| line.entry) else {
            return Err(none());
        };
        if self.entries().any(|found| *found == wanted) {
            return Ok(Vec::new());
        }
        let end = self.lines.len();
        Ok(vec![LineEdit::Insert(end, MARK.into()), LineEdit::Insert(end, entry.into())])
    }

    /// What removes the lines that are just this entry and were added by [`PptMatches::add`].
    pub fn remove(&self, entry: &str) -> Vec<LineEdit> {
        let is = |text: &[u8], wanted: &str| text.strip_suffix(b"\r").unwrap_or(text) == wanted.as_bytes();
        let pairs = self.lines.iter().zip(self.lines.iter().skip(1)).enumerate();
        pairs
            .filter(|(_, (mark, line))| is(&mark.text, MARK) && is(&line.text, entry))
            .flat_map(|(number, _)| [LineEdit::Remove(number), LineEdit::Remove(number + 1)])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line_edit;

    #[test]
    fn what_another_line_says_is_not_added() {
        for (before, entry, after) in [
            ("", "pciex8086,37d2", "# slotpass:\npciex8086,37d2\n"),
            ("# x\npci8086,37d2", "pciex8086,37d2", "# x\npci8086,37d2"),
            ("pci8086\n", "pciex8086,37d2", "pci8086\n# slotpass:\npciex8086,37d2\n"),
            ("/pci@0,0/display@2\n", "/pci@0,0/display@2", "/pci@0,0/display@2\n"),
        ] {
            let edits = PptMatches::parse(before.as_bytes()).add(entry).unwrap();
            assert_eq!(line_edit::apply(before.as_bytes(), &edits), after.as_bytes());
        }
    }

    #[test]
    fn lines_of_the_user_stay() {
        for (before, after) in [
            ("pci8086,1\n", "pci8086,1\n"),
            ("# slotpass:\npci8086,1\n", ""),
            ("# slotpass:\npci8086,2\npci8086,1\n", "# slotpass:\npci8086,2\npci8086,1\n"),
            ("# mine\r\n# slotpass:\r\npci8086,1\r\npci8086,1\r\n", "# mine\r\npci8086,1\r\n"),
        ] {
            let edits = PptMatches::parse(before.as_bytes()).remove("pci8086,1");
            let found = line_edit::apply(before.as_bytes(), &edits);
            assert_eq!(String::from_utf8_lossy(&found), after, "{before:?}");
        }
    }

    #[test]
    fn what_would_match_nothing_is_not_added() {
        for (entry, reason) in [
            ("pciex11,46", Reason::ShortVendor),
            ("pciclass,0300", Reason::Class),
            ("/devices/pci@0,0/display@2", Reason::DevicesPrefix),
            ("# no", Reason::NoEntry),
            ("/pci@0,0/display@2\n", Reason::NoEntry),
            ("", Reason::NoEntry),
        ] {
            assert_eq!(PptMatches::default().add(entry).unwrap_err().reason, reason, "{entry}");
        }
    }

    proptest! {
        #[test]
        fn other_lines_stay(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n')], 0..60)) {
            const ENTRY: &str = "/pci@0,0/display@2";
            let before = PptMatches::parse(&bytes);
            prop_assert_eq!(before.remove(ENTRY), vec![]);
            let after = line_edit::apply(&bytes, &before.add(ENTRY).unwrap());
            let again = PptMatches::parse(&after);
            prop_assert_eq!(again.add(ENTRY), Ok(vec![]), "once");
            prop_assert_eq!(line_edit::apply(&after, &again.remove(ENTRY)), bytes);
        }
    }
}
