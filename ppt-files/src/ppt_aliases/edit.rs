//! Adding and removing an alias.

use super::{DRIVER, PptAliases, Reason, words};
use crate::file_text::quoted;
use crate::line_edit::LineEdit;

/// An alias that cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The first line with an alias counts, and that gives it to another driver, if the host has such a one.
    #[error(
        "line {line} gives {} to driver {}, which keeps it if the host has such a driver: the first line with an alias counts; \
         remove that",
        quoted(alias),
        quoted(driver)
    )]
    OtherDriver {
        /// Number of the line, from 1.
        line: usize,
        /// The alias.
        alias: Vec<u8>,
        /// The driver.
        driver: Vec<u8>,
    },
    /// No function has it.
    #[error("{0}")]
    NoAlias(Reason),
}

impl PptAliases {
    /// What adds the alias; nothing if it is there and counts.
    pub fn add(&self, alias: &[u8]) -> Result<Vec<LineEdit>, EditError> {
        if alias.iter().any(u8::is_ascii_control) {
            return Err(EditError::NoAlias(Reason::NoName { alias: alias.to_owned() }));
        }
        let text = line(alias);
        if let Some(finding) = PptAliases::parse(&text).findings.into_iter().next() {
            return Err(EditError::NoAlias(finding.reason));
        }
        for (number, line) in (1..).zip(&self.lines) {
            match &line.entry {
                Some(entry) if entry.aliases.iter().any(|found| found == alias) => {
                    return match entry.driver == DRIVER.as_bytes() {
                        true => Ok(Vec::new()),
                        false => Err(EditError::OtherDriver {
                            line: number,
                            alias: alias.to_owned(),
                            driver: entry.driver.clone(),
                        }),
                    };
                }
                _ => {}
            }
        }
        Ok(vec![LineEdit::Insert(self.lines.len(), text)])
    }

    /// What removes the alias wherever it is bound to `ppt`. A line with others keeps those, and the rest of its text.
    pub fn remove(&self, alias: &[u8]) -> Vec<LineEdit> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter_map(|(number, line)| {
                let entry = line.entry.as_ref().filter(|entry| entry.driver == DRIVER.as_bytes())?;
                if !entry.aliases.iter().any(|found| found == alias) {
                    return None;
                }
                if entry.aliases.iter().all(|found| found == alias) {
                    return Some(LineEdit::Remove(number));
                }
                Some(LineEdit::Replace(number, without(&line.text, alias)))
            })
            .collect()
    }
}

/// The line that binds the alias.
fn line(alias: &[u8]) -> Vec<u8> {
    let mut line = [DRIVER.as_bytes(), b" \""].concat();
    for byte in alias {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.push(b'"');
    line
}

/// The line without the words that are this alias, and without the blanks before each.
fn without(text: &[u8], alias: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut from = 0;
    for word in words(text, &mut Vec::new()).iter().skip(1).filter(|word| word.name == alias) {
        let before = text.get(from..word.place.start).unwrap_or_default();
        let blanks = before.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        kept.extend(before.get(..before.len() - blanks).unwrap_or_default());
        from = word.place.end;
        // What follows must not become a part of what is before.
        if text.get(from).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'#')) {
            kept.push(b' ');
        }
    }
    kept.extend(text.get(from..).unwrap_or_default());
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line_edit;

    fn edited(bytes: &[u8], edit: impl Fn(&PptAliases) -> Vec<LineEdit>) -> Vec<u8> {
        line_edit::apply(bytes, &edit(&PptAliases::parse(bytes)))
    }

    fn removed(text: &str, alias: &str) -> String {
        String::from_utf8(edited(text.as_bytes(), |aliases| aliases.remove(alias.as_bytes()))).unwrap()
    }

    fn added(text: &str, alias: &str) -> String {
        String::from_utf8(edited(text.as_bytes(), |aliases| aliases.add(alias.as_bytes()).unwrap())).unwrap()
    }

    #[test]
    fn an_alias_is_added_once() {
        for (before, after) in [
            ("", "ppt \"pci8086,1\"\n"),
            ("# mine\n", "# mine\nppt \"pci8086,1\"\n"),
            ("# mine", "# mine\nppt \"pci8086,1\""),
            ("ppt \"pci9,9\" \"pci8086,1\" # two\n", "ppt \"pci9,9\" \"pci8086,1\" # two\n"),
            ("ppt pci8086,\"1\"\nnvme \"pci8086,1\"\n", "ppt pci8086,\"1\"\nnvme \"pci8086,1\"\n"),
        ] {
            assert_eq!(added(before, "pci8086,1"), after);
        }
    }

    #[test]
    fn what_would_have_no_effect_is_not_added() {
        let aliases = PptAliases::parse(b"#\nnvme \"pci8086,1\"\n");
        let error = aliases.add(b"pci8086,1").unwrap_err().to_string();
        assert!(error.starts_with("line 2 gives 'pci8086,1' to driver 'nvme', which keeps it if"), "{error}");
        let too_long = format!("/pci@0,0/{}@1", "x".repeat(1013));
        aliases.add(too_long.replacen('x', "", 1).as_bytes()).unwrap();
        for alias in [
            "/devices/pci@0,0/display@2",
            "/pci@0,0/display@02",
            "pci8086,01",
            "nvme",
            "",
            "/pci@0,0/a\nb@1",
            &too_long,
        ] {
            assert!(matches!(aliases.add(alias.as_bytes()), Err(EditError::NoAlias(_))), "{alias}");
        }
    }

    #[test]
    fn a_line_with_several_aliases_keeps_the_others() {
        for (before, after) in [
            ("ppt \"pci8086,1\"\n", ""),
            ("# a\n  ppt \"pci8086,1\" # it\n# b\n", "# a\n# b\n"),
            ("ppt \"a,1\" \t\"pci8086,1\"  \"b,2\" # rest\n", "ppt \"a,1\"  \"b,2\" # rest\n"),
            ("ppt \"pci8086,1\"\"b,2\"\n", "ppt \"b,2\"\n"),
            ("ppt a\"pci8086,1\"b\n", "ppt a b\n"),
            ("ppt \"pci8086,1\" \"pci8086,1\" \"b,2\"\n", "ppt \"b,2\"\n"),
            ("ppt pci8086,\"1\" b\r\n", "ppt b\r\n"),
            ("nvme \"pci8086,1\"\n", "nvme \"pci8086,1\"\n"),
            ("ppt \"pci8086,1\n", "ppt \"pci8086,1\n"),
            ("ppt \"pci8086,1\"\nppt \"pci8086,1\"", ""),
        ] {
            assert_eq!(removed(before, "pci8086,1"), after, "{before}");
        }
    }

    fn any_file() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            r#"(ppt|nvme) ?("(pci8086,1|/pci@0,0/display@2|x)" ?){0,3}[#"\\,]?"#.prop_map(String::into_bytes),
        ];
        (proptest::collection::vec(line, 0..6), any::<bool>()).prop_map(|(lines, newline)| {
            let mut bytes = lines.join(&b'\n');
            if newline {
                bytes.push(b'\n');
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn other_lines_and_aliases_stay(bytes in any_file(), choice in 0_usize..3) {
            let alias = [&b"pci8086,1"[..], b"/pci@0,0/display@2", b"pciex10de,be3"][choice];
            let before = PptAliases::parse(&bytes);
            let ppt_aliases = |file: &PptAliases| -> Vec<Vec<u8>> {
                let entries = file.entries().filter(|entry| entry.driver == b"ppt");
                entries.flat_map(|entry| entry.aliases.clone()).collect()
            };
            let texts = |file: &PptAliases| -> Vec<Vec<u8>> {
                let others = file.lines().iter().filter(|line| {
                    line.entry.as_ref().is_none_or(|e| e.driver != b"ppt" || !e.aliases.iter().any(|a| a == alias))
                });
                others.map(|line| line.text.clone()).collect()
            };
            let after = edited(&bytes, |aliases| aliases.remove(alias));
            let gone = PptAliases::parse(&after);
            let mut expected = ppt_aliases(&before);
            expected.retain(|found| found != alias);
            prop_assert_eq!(ppt_aliases(&gone), expected);
            let mut rest = texts(&gone).into_iter();
            prop_assert!(texts(&before).into_iter().all(|text| rest.any(|found| found == text)));

            if let Ok(edits) = before.add(alias) {
                let after = line_edit::apply(&bytes, &edits);
                prop_assert!(after.starts_with(bytes.strip_suffix(b"\n").unwrap_or(&bytes)));
                let again = PptAliases::parse(&after);
                prop_assert!(ppt_aliases(&again).iter().any(|found| found == alias));
                prop_assert_eq!(again.add(alias), Ok(vec![]), "once");
                if !ppt_aliases(&before).iter().any(|found| found == alias) {
                    prop_assert_eq!(line_edit::apply(&after, &again.remove(alias)), bytes, "undone");
                }
            }
        }
    }
}
