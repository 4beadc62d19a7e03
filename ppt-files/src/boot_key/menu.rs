//! GRUB's menu: each of its entries has a kernel and the modules that are loaded with it. Once one of an entry's modules has a
//! type, all of them need one.

use super::variables::canonical;
use super::{FILES, Paths};
use crate::file_text::{self, quoted};
use crate::line_edit::LineEdit;

/// Before the lines that this program adds. The numbers behind it are of those modules of the entry, from 1, that got their
/// types with them.
const MARK: &str = "# slotpass: files for ppt; types added to modules:";
const ROOT: &str = " type=rootfs name=ramdisk";
const HASH: &str = " type=hash name=ramdisk";

/// A menu that cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MenuError {
    /// Not the archive, nor its hash.
    #[error(
        "line {line}: the module {} has no type=, which all of an entry need then; give it one",
        quoted(text)
    )]
    Untyped {
        /// Number of the line, from 1.
        line: usize,
        /// The line.
        text: Vec<u8>,
    },
    /// It and the next line are one for GRUB.
    #[error("line {line}: it ends in a backslash and goes on in the next line; make one line of them")]
    Continued {
        /// Number of the line, from 1.
        line: usize,
    },
    /// Nothing starts illumos.
    #[error("no entry of it has a kernel with modules")]
    NoEntry,
}

/// A module line of an entry.
struct Module<'a> {
    line: usize,
    text: &'a [u8],
    words: Vec<String>,
}

impl Module<'_> {
    fn option(&self, key: &str) -> Option<&str> {
        self.words.iter().skip(2).find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn is_hash(&self) -> bool {
        self.words.get(1).is_some_and(|path| path.ends_with(".hash"))
    }
}

/// An entry with a kernel: its modules, and the lines with our mark.
#[derive(Default)]
struct Entry<'a> {
    has_kernel: bool,
    modules: Vec<Module<'a>>,
    marks: Vec<(usize, Vec<usize>)>,
}

fn entries(bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = vec![Entry::default()];
    for (number, text) in file_text::lines(bytes).enumerate() {
        let line = String::from_utf8_lossy(text);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let command = words.first().map(String::as_str).unwrap_or_default();
        if command == "title" {
            entries.push(Entry::default());
        }
        let Some(entry) = entries.last_mut() else { continue };
        match command {
            "kernel" | "kernel$" => entry.has_kernel = true,
            "module" | "module$" => entry.modules.push(Module { line: number, text, words }),
            _ => {
                let typed = line.trim().strip_prefix(MARK);
                let typed =
                    typed.map(|rest| rest.split_whitespace().filter_map(|word| word.parse().ok()).collect());
                entry.marks.extend(typed.map(|typed| (number, typed)));
            }
        }
    }
    entries.retain(|entry| entry.has_kernel && !entry.modules.is_empty());
    entries
}

impl Module<'_> {
    fn loads(&self, name: &str) -> bool {
        self.option("type") == Some("file") && self.option("name").map(canonical).as_deref() == Some(name)
    }
}

/// From where a file with this name is loaded: the numbers of the lines, from 1, and the paths.
pub fn loaded(bytes: &[u8], name: &str) -> Vec<(usize, String)> {
    let entries = entries(bytes);
    let modules = entries.iter().flat_map(|entry| &entry.modules).filter(|module| module.loads(name));
    modules.map(|module| (module.line + 1, module.words.get(1).cloned().unwrap_or_default())).collect()
}

/// What makes every entry load those of the two files that it does not, from these paths.
pub fn add(bytes: &[u8], paths: &Paths) -> Result<Vec<LineEdit>, MenuError> {
    let continued = (1..).zip(file_text::lines(bytes)).find(|(_, line)| split_end(line).0.ends_with(b"\\"));
    if let Some((line, _)) = continued {
        return Err(MenuError::Continued { line });
    }
    let entries = entries(bytes);
    if entries.is_empty() {
        return Err(MenuError::NoEntry);
    }
    let mut edits = Vec::new();
    for entry in &entries {
        let missing = FILES
            .iter()
            .zip(paths)
            .map(|((_, name), path)| (path, name))
            .filter(|(_, name)| !entry.modules.iter().any(|module| module.loads(name)));
        let missing: Vec<_> = missing.collect();
        let Some(last) = entry.modules.last().filter(|_| !missing.is_empty()) else { continue };
        let mut typed = String::new();
        for (number, module) in (1..).zip(&entry.modules) {
            if module.option("type").is_some() {
                continue;
            }
            let with = match number {
                _ if module.is_hash() => HASH,
                1 => ROOT,
                _ => return Err(MenuError::Untyped { line: module.line + 1, text: module.text.to_owned() }),
            };
            let (text, end) = split_end(module.text);
            edits.push(LineEdit::Replace(module.line, [text, with.as_bytes(), end].concat()));
            typed += &format!(" {number}");
        }
        let command = last.words.first().map(String::as_str).unwrap_or_default();
        let indent = last.text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let indent = String::from_utf8_lossy(last.text.get(..indent).unwrap_or_default()).into_owned();
        let mark = format!("{indent}{MARK}{}", if typed.is_empty() { " none" } else { &typed });
        edits.push(LineEdit::Insert(last.line + 1, mark.into_bytes()));
        edits.extend(missing.iter().map(|(path, name)| {
            LineEdit::Insert(
                last.line + 1,
                format!("{indent}{command} {path} type=file name={name}").into_bytes(),
            )
        }));
    }
    Ok(edits)
}

/// A line, and what it ends with if it was written on Windows.
fn split_end(text: &[u8]) -> (&[u8], &[u8]) {
    text.strip_suffix(b"\r").map_or((text, b""), |text| (text, b"\r"))
}

/// What removes the lines that were added, and the types.
pub fn remove(bytes: &[u8], paths: &Paths) -> Vec<LineEdit> {
    let mut edits = Vec::new();
    for entry in entries(bytes) {
        for (mark, typed) in &entry.marks {
            edits.push(LineEdit::Remove(*mark));
            // What follows the mark without a line of another kind in between.
            let below = entry.modules.iter().filter(|module| module.line > *mark);
            let ours = |module: &Module<'_>| {
                paths.iter().any(|path| module.words.get(1).is_some_and(|word| word == path))
            };
            let added =
                (mark + 1..).zip(below).take_while(|(line, module)| module.line == *line && ours(module));
            edits.extend(added.map(|(line, _)| LineEdit::Remove(line)));
            for number in typed {
                let Some(module) = number.checked_sub(1).and_then(|at| entry.modules.get(at)) else {
                    continue;
                };
                let (text, end) = split_end(module.text);
                let without = [ROOT, HASH].iter().find_map(|with| text.strip_suffix(with.as_bytes()));
                edits.extend(without.map(|text| LineEdit::Replace(module.line, [text, end].concat())));
            }
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line_edit;

    fn add(bytes: &[u8]) -> Result<Vec<LineEdit>, MenuError> {
        super::add(bytes, &FILES.map(|(path, _)| path.to_owned()))
    }

    fn remove(bytes: &[u8]) -> Vec<LineEdit> {
        super::remove(bytes, &FILES.map(|(path, _)| path.to_owned()))
    }

    const PLAIN: &str = "default=0
timeout=10
title Live 64-bit
   kernel$ /os/20180203/platform/i86pc/kernel/amd64/unix -B console=${os_console},smartos=true
   module$ /os/20180203/platform/i86pc/amd64/boot_archive
   module$ /os/20180203/platform/i86pc/amd64/boot_archive.hash

title Windows
   chainloader +1
title Live 64-bit +kmdb
\tkernel /platform/i86pc/kernel/amd64/unix -kd
\tmodule /platform/i86pc/amd64/boot_archive type=rootfs name=ramdisk
\tmodule /platform/i86pc/amd64/boot_archive.hash type=hash name=ramdisk
";
    const CHANGED: &str = "default=0
timeout=10
title Live 64-bit
   kernel$ /os/20180203/platform/i86pc/kernel/amd64/unix -B console=${os_console},smartos=true
   module$ /os/20180203/platform/i86pc/amd64/boot_archive type=rootfs name=ramdisk
   module$ /os/20180203/platform/i86pc/amd64/boot_archive.hash type=hash name=ramdisk
   # slotpass: files for ppt; types added to modules: 1 2
   module$ /overlay/etc/ppt_aliases type=file name=etc/ppt_aliases
   module$ /overlay/etc/ppt_matches type=file name=etc/ppt_matches

title Windows
   chainloader +1
title Live 64-bit +kmdb
\tkernel /platform/i86pc/kernel/amd64/unix -kd
\tmodule /platform/i86pc/amd64/boot_archive type=rootfs name=ramdisk
\tmodule /platform/i86pc/amd64/boot_archive.hash type=hash name=ramdisk
\t# slotpass: files for ppt; types added to modules: none
\tmodule /overlay/etc/ppt_aliases type=file name=etc/ppt_aliases
\tmodule /overlay/etc/ppt_matches type=file name=etc/ppt_matches
";

    #[test]
    fn every_entry_gets_the_modules_and_every_module_a_type() {
        for cut in [0, 1] {
            let before = &PLAIN.as_bytes()[..PLAIN.len() - cut];
            let after = line_edit::apply(before, &add(before).unwrap());
            assert_eq!(String::from_utf8_lossy(&after), CHANGED[..CHANGED.len() - cut]);
            assert_eq!(add(&after), Ok(vec![]), "once");
            assert_eq!(line_edit::apply(&after, &remove(&after)), before);
        }
    }

    #[test]
    fn lines_of_the_user_stay() {
        let own = "title x\nkernel /unix\nmodule /archive type=rootfs name=ramdisk\n\
                   module /bootfs/etc/ppt_aliases type=file name=etc/ppt_aliases\n";
        let after = line_edit::apply(own.as_bytes(), &add(own.as_bytes()).unwrap());
        let text = String::from_utf8_lossy(&after).into_owned();
        assert!(
            text.contains("name=etc/ppt_matches") && !text.contains("/overlay/etc/ppt_aliases"),
            "{text}"
        );
        assert_eq!(line_edit::apply(&after, &remove(&after)), own.as_bytes());
        assert_eq!(remove(own.as_bytes()), vec![]);
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        let menu = "title x\r\nkernel /unix\r\nmodule /archive\r\n";
        let after = line_edit::apply(menu.as_bytes(), &add(menu.as_bytes()).unwrap());
        let text = String::from_utf8_lossy(&after).into_owned();
        assert!(text.contains("\nmodule /archive type=rootfs name=ramdisk\r\n"), "{text:?}");
        assert_eq!(line_edit::apply(&after, &remove(&after)), menu.as_bytes());
    }

    #[test]
    fn lines_that_go_on_are_refused() {
        for menu in [
            "title x\nkernel /unix -B \\\nx=y\nmodule /archive\n",
            "title x\r\nkernel /unix \\\r\nmodule /archive\r\n",
        ] {
            assert_eq!(add(menu.as_bytes()), Err(MenuError::Continued { line: 2 }), "{menu:?}");
        }
    }

    #[test]
    fn what_cannot_be_typed_is_said() {
        let menu = "title x\nkernel /unix\nmodule /archive\nmodule /microcode\n";
        assert_eq!(
            add(menu.as_bytes()),
            Err(MenuError::Untyped { line: 4, text: b"module /microcode".to_vec() })
        );
        for menu in ["", "title x\nchainloader +1\n", "title x\nkernel /unix\n"] {
            assert_eq!(add(menu.as_bytes()), Err(MenuError::NoEntry), "{menu}");
        }
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_removed(
            lines in proptest::collection::vec(
                r"(title x|[ \t]?kernel\$? /unix|[ \t]{0,2}module\$? /(a|b\.hash)( type=(rootfs|hash) name=ramdisk)?|#?.{0,5})\r?",
                0..9,
            ),
            newline: bool,
        ) {
            let text = lines.join("\n") + if newline { "\n" } else { "" };
            if let Ok(edits) = add(text.as_bytes()) {
                let after = line_edit::apply(text.as_bytes(), &edits);
                prop_assert_eq!(add(&after), Ok(vec![]), "once");
                let again = line_edit::apply(&after, &remove(&after));
                prop_assert_eq!(String::from_utf8_lossy(&again), text);
            }
        }
    }
}
