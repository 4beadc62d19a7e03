//! Changes of single lines of a small file that leave all its other bytes as they are.

use std::borrow::Cow;
use std::path::Path;

use crate::file_text;

/// What becomes of a line. Lines are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEdit {
    /// It goes.
    Remove(usize),
    /// It becomes this text.
    Replace(usize, Vec<u8>),
    /// This text becomes a line before it; behind the last one, if there is no such line.
    Insert(usize, Vec<u8>),
}

/// The file's bytes after these edits, whose numbers are those of its lines before. A file whose last line has no newline
/// keeps that habit, so that adding a line at the end and removing it gives the same bytes again.
pub fn apply(bytes: &[u8], edits: &[LineEdit]) -> Vec<u8> {
    let lines: Vec<&[u8]> = file_text::lines(bytes).collect();
    let ends_with_newline = bytes.is_empty() || bytes.ends_with(b"\n");
    let mut result: Vec<&[u8]> = Vec::with_capacity(lines.len() + edits.len());
    for (number, line) in lines.iter().enumerate() {
        result.extend(edits.iter().filter_map(|edit| match edit {
            LineEdit::Insert(at, text) if *at == number => Some(&text[..]),
            _ => None,
        }));
        let of_this = edits.iter().find_map(|edit| match edit {
            LineEdit::Remove(at) if *at == number => Some(None),
            LineEdit::Replace(at, text) if *at == number => Some(Some(&text[..])),
            _ => None,
        });
        result.extend(of_this.unwrap_or(Some(line)));
    }
    result.extend(edits.iter().filter_map(|edit| match edit {
        LineEdit::Insert(at, text) if *at >= lines.len() => Some(&text[..]),
        _ => None,
    }));
    let mut bytes = result.join(&b'\n');
    if ends_with_newline && !result.is_empty() {
        bytes.push(b'\n');
    }
    bytes
}

/// The edits as a person reads them, a line each: `-` before what goes, `+` before what comes.
pub fn difference(bytes: &[u8], edits: &[LineEdit]) -> Vec<String> {
    let lines: Vec<&[u8]> = file_text::lines(bytes).collect();
    let mut sorted: Vec<&LineEdit> = edits.iter().collect();
    sorted.sort_by_key(|edit| match edit {
        LineEdit::Remove(at) | LineEdit::Replace(at, _) | LineEdit::Insert(at, _) => *at,
    });
    let old = |at: &usize| format!("-{}", shown(lines.get(*at).copied().unwrap_or_default()));
    let mut difference = Vec::new();
    for edit in sorted {
        match edit {
            LineEdit::Remove(at) => difference.push(old(at)),
            LineEdit::Replace(at, text) => difference.extend([old(at), format!("+{}", shown(text))]),
            LineEdit::Insert(_, text) => difference.push(format!("+{}", shown(text))),
        }
    }
    difference
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .flat_map(|c| if c == '"' { vec![c] } else { c.escape_debug().collect() })
        .collect()
}

/// Shell commands that do the same, a line each. Nothing where a file stays as it is.
pub fn commands(path: &Path, bytes: &[u8], edits: &[LineEdit]) -> Vec<String> {
    if edits.is_empty() {
        return Vec::new();
    }
    let path = quoted(&path.to_string_lossy()).into_owned();
    let count = file_text::lines(bytes).count();
    if !bytes.is_empty() && apply(bytes, edits).is_empty() {
        return vec![format!("rm -- {path}")];
    }
    let appended: Vec<Cow<'_, str>> = edits
        .iter()
        .filter_map(|edit| match edit {
            LineEdit::Insert(at, text) if *at >= count => Some(String::from_utf8_lossy(text)),
            _ => None,
        })
        .collect();
    // Lines are added first: sed ends a last line without a newline with one when it removes what is behind it.
    let form = if bytes.is_empty() || bytes.ends_with(b"\n") { "%s\\n" } else { "\\n%s" };
    let mut commands: Vec<String> =
        appended.iter().map(|text| format!("printf '{form}' {} >>{path}", quoted(text))).collect();
    let scripts: Vec<String> = edits
        .iter()
        .filter_map(|edit| match edit {
            LineEdit::Remove(at) => Some(format!("-e {}d", at + 1)),
            LineEdit::Replace(at, text) => Some(sed_command(at + 1, 'c', text)),
            LineEdit::Insert(at, text) if *at < count => Some(sed_command(at + 1, 'i', text)),
            LineEdit::Insert(..) => None,
        })
        .collect();
    if !scripts.is_empty() {
        commands.push(format!("sed -i {} -- {path}", scripts.join(" ")));
    }
    commands
}

/// sed's `c` or `i` with its text, which is a line of the script for itself: behind the command, backslashes at its beginning and
/// end would be the command's. Blanks in front and backslashes have one more before them.
fn sed_command(line: usize, command: char, text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace('\\', "\\\\");
    let text = if text.starts_with([' ', '\t']) { format!("\\{text}") } else { text };
    format!("-e '{line}{command}\\' -e {}", quoted(&text))
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:,=+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_lines_stay_as_they_are() {
        let insert = |at, text: &str| LineEdit::Insert(at, text.into());
        for (before, edits, after) in [
            ("", vec![insert(0, "a")], "a\n"),
            ("# x\r\n\n", vec![insert(2, "a")], "# x\r\n\na\n"),
            ("x", vec![insert(1, "a")], "x\na"),
            ("x\na", vec![LineEdit::Remove(1)], "x"),
            ("a\n", vec![LineEdit::Remove(0)], ""),
            ("x\ny\nz\n", vec![LineEdit::Remove(0), LineEdit::Replace(2, "Z".into())], "y\nZ\n"),
            ("x\ny\n", vec![insert(1, "a"), insert(1, "b")], "x\na\nb\ny\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&apply(before.as_bytes(), &edits)), after, "{before:?}");
        }
    }

    #[test]
    fn the_difference_is_what_diff_would_show() {
        let edits = [LineEdit::Insert(2, "ppt \"b\"".into()), LineEdit::Replace(0, "\tB".into())];
        assert_eq!(difference(b"a\nx\n", &edits), ["-a", "+\\tB", "+ppt \"b\""]);
    }

    #[test]
    fn words_are_what_the_shell_makes_of_them() {
        for word in ["intel_iommu=on", "", "a b", "$(x) `y` !z", "it's 'so'", "\"\\\n;&|"] {
            let command = format!("printf %s {}", quoted(word));
            let said = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
        assert_eq!(quoted("12@0000:01:00.0"), "12@0000:01:00.0");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_commands_do_the_same(
            lines in proptest::collection::vec("[ a\\\\'\"$#/]{0,6}", 0..6),
            newline: bool,
            edits in proptest::collection::vec((0_usize..8, 0_u8..3, "[ \\ta\\\\'\"$/&]{1,6}"), 0..4),
        ) {
            let mut text = lines.join("\n");
            if newline && !text.is_empty() {
                text.push('\n');
            }
            let count = file_text::lines(text.as_bytes()).count();
            let mut taken = std::collections::HashSet::new();
            let edits: Vec<LineEdit> = edits
                .into_iter()
                .filter(|(at, _, _)| taken.insert(*at))
                .filter_map(|(at, kind, text)| match kind {
                    // sed always ends the last line that it writes with a newline if it made that line.
                    0 if at < count => Some(LineEdit::Remove(at)),
                    1 if at < count => Some(LineEdit::Replace(at, text.into())),
                    2 => Some(LineEdit::Insert(at.min(count), text.into())),
                    _ => None,
                })
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &text).unwrap();
            let commands = commands(file.path(), text.as_bytes(), &edits).join("\n");
            prop_assert!(Command::new("sh").args(["-ec", &commands]).status().unwrap().success());
            let found = fs::read(file.path()).unwrap_or_default();
            let trimmed = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
            prop_assert_eq!(trimmed(&found), trimmed(&apply(text.as_bytes(), &edits)), "{}", commands);
        }
    }
}
