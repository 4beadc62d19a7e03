//! `/etc/ppt_aliases`: any bytes are a file, whose lines stay what they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppt_files::ppt_aliases::PptAliases;

fuzz_target!(|bytes: &[u8]| {
    let file = PptAliases::parse(bytes);
    let lines: Vec<&[u8]> = file.lines().iter().map(|line| line.text.as_slice()).collect();
    assert_eq!(lines.join(&b'\n'), bytes.strip_suffix(b"\n").unwrap_or(bytes));
    for finding in file.findings() {
        assert!((1..=lines.len()).contains(&finding.line), "{finding}");
        assert!(!finding.to_string().contains(char::is_control));
    }
});
