//! Changes of `/etc/ppt_aliases` and `/etc/ppt_matches`: what is added is there and can be removed, and nothing else changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppt_files::line_edit;
use ppt_files::ppt_aliases::PptAliases;
use ppt_files::ppt_matches::PptMatches;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (bytes, alias) = input;
    let aliases = PptAliases::parse(bytes);
    if let Ok(edits) = aliases.add(alias) {
        let added = line_edit::apply(bytes, &edits);
        let after = PptAliases::parse(&added);
        assert!(after.entries().any(|entry| entry.aliases.iter().any(|found| found == alias)));
        assert_eq!(after.add(alias), Ok(vec![]));
        let removed = line_edit::apply(&added, &after.remove(alias));
        let left = PptAliases::parse(&removed);
        assert!(left.remove(alias).is_empty());
        if !edits.is_empty() {
            assert_eq!(removed, bytes);
        }
    }
    if let Ok(entry) = std::str::from_utf8(alias) {
        let matches = PptMatches::parse(bytes);
        if let Ok(edits) = matches.add(entry) {
            let added = line_edit::apply(bytes, &edits);
            let after = PptMatches::parse(&added);
            assert_eq!(after.add(entry), Ok(vec![]));
            let removed = line_edit::apply(&added, &after.remove(entry));
            if !edits.is_empty() {
                assert_eq!(removed, bytes);
            }
        }
    }
});
