//! Variables of illumos' loader(7): four for each file that it loads, with any prefix, `x_load="YES"`, `x_type="file"`,
//! `x_name=` where the file is, `x_flags="name=…"` what the kernel calls it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{FILES, Paths};
use crate::file_text;
use crate::line_edit::LineEdit;

/// Before the lines that this program adds, and part of their variables' names.
const MARK: &str = "# slotpass: files for ppt";
const PREFIX: &str = "slotpass_";

/// Files by their paths on the key and the kernel's names of them.
pub type Missing = Vec<(String, &'static str)>;

/// Variables that load a file under a name that nobody looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the line, from 1.
    pub line: usize,
    variable: String,
    value: String,
    wanted: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { line, variable, value, wanted } = self;
        let (variable, value) = (variable.escape_debug(), value.escape_debug());
        write!(
            f,
            "line {line}: {variable}=\"{value}\" gives the file a name that nothing looks for, and files of one name are \
             loaded once; it has to be {variable}=\"name={wanted}\""
        )
    }
}

/// A variable of a line. The last one with a name counts.
fn variable(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.trim().split_once('=')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let value = value.split('#').next().unwrap_or_default().trim();
    Some((name.to_owned(), value.trim_matches('"').to_owned()))
}

struct Module {
    line: usize,
    prefix: String,
    load: String,
    path: String,
    flags: String,
}

fn modules(bytes: &[u8]) -> Vec<Module> {
    let mut variables: HashMap<String, (usize, String)> = HashMap::new();
    for (number, line) in (1..).zip(file_text::lines(bytes)) {
        variables.extend(variable(line).map(|(name, value)| (name, (number, value))));
    }
    let prefixes: BTreeMap<String, ()> =
        variables.keys().filter_map(|name| Some((name.strip_suffix("_flags")?.to_owned(), ()))).collect();
    let value = |prefix: &str, kind| variables.get(&format!("{prefix}_{kind}")).cloned().unwrap_or_default();
    prefixes
        .into_keys()
        .map(|prefix| {
            let (line, flags) = value(&prefix, "flags");
            let (load, path) = (value(&prefix, "load").1, value(&prefix, "name").1);
            Module { line, prefix, load, path, flags }
        })
        .collect()
}

/// A name as the kernel takes it: without what it strips.
pub fn canonical(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let name = parts.join("/");
    name.strip_prefix("system/boot/").unwrap_or(&name).to_owned()
}

fn name_of(flags: &str) -> Option<String> {
    flags.split_whitespace().find_map(|flag| flag.strip_prefix("name=")).map(canonical)
}

/// Files of the two that are loaded under other names.
pub fn findings(bytes: &[u8]) -> Vec<Finding> {
    let of = |module: Module| {
        let (_, wanted) =
            FILES.into_iter().find(|(_, name)| module.path.rsplit('/').next() == name.rsplit('/').next())?;
        (name_of(&module.flags).as_deref() != Some(wanted)).then(|| Finding {
            line: module.line,
            variable: format!("{}_flags", module.prefix),
            value: module.flags,
            wanted,
        })
    };
    let mut findings: Vec<Finding> = modules(bytes).into_iter().filter_map(of).collect();
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// From where a file with this name is loaded: the numbers of the lines that name it so, from 1, and the paths.
pub fn loaded(bytes: &[u8], name: &str) -> Vec<(usize, String)> {
    let loaded = modules(bytes).into_iter().filter(|module| module.load.eq_ignore_ascii_case("yes"));
    let loaded = loaded.filter(|module| name_of(&module.flags).as_deref() == Some(name));
    loaded.map(|module| (module.line, module.path)).collect()
}

/// Those of the two files that the loader does not load: paths and names.
pub fn missing(bytes: &[u8], paths: &Paths) -> Missing {
    let files = FILES.iter().zip(paths).filter(|((_, name), _)| loaded(bytes, name).is_empty());
    files.map(|((_, name), path)| (path.clone(), *name)).collect()
}

/// What makes the loader load these, as far as this one of its files does not yet.
pub fn add(bytes: &[u8], files: &[(String, &'static str)]) -> Vec<LineEdit> {
    let end = file_text::lines(bytes).count();
    let mut lines = vec![MARK.to_owned()];
    for (path, name) in files.iter().filter(|(_, name)| loaded(bytes, name).is_empty()) {
        let prefix = format!("{PREFIX}{}", name.rsplit('/').next().unwrap_or_default());
        lines.push(format!("{prefix}_load=\"YES\""));
        lines.push(format!("{prefix}_type=\"file\""));
        lines.push(format!("{prefix}_name=\"{path}\""));
        lines.push(format!("{prefix}_flags=\"name={name}\""));
    }
    if lines.len() == 1 {
        return Vec::new();
    }
    lines.into_iter().map(|line| LineEdit::Insert(end, line.into())).collect()
}

/// What removes the lines that were added.
pub fn remove(bytes: &[u8]) -> Vec<LineEdit> {
    let is_added = |line: &[u8]| {
        line == MARK.as_bytes() || variable(line).is_some_and(|(name, _)| name.starts_with(PREFIX))
    };
    let lines = file_text::lines(bytes).enumerate();
    lines.filter(|(_, line)| is_added(line)).map(|(number, _)| LineEdit::Remove(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_edit;

    fn add(bytes: &[u8]) -> Vec<LineEdit> {
        super::add(bytes, &missing(bytes, &FILES.map(|(path, _)| path.to_owned())))
    }

    const ADDED: &str = "# slotpass: files for ppt
slotpass_ppt_aliases_load=\"YES\"
slotpass_ppt_aliases_type=\"file\"
slotpass_ppt_aliases_name=\"/overlay/etc/ppt_aliases\"
slotpass_ppt_aliases_flags=\"name=etc/ppt_aliases\"
slotpass_ppt_matches_load=\"YES\"
slotpass_ppt_matches_type=\"file\"
slotpass_ppt_matches_name=\"/overlay/etc/ppt_matches\"
slotpass_ppt_matches_flags=\"name=etc/ppt_matches\"
";

    #[test]
    fn four_variables_a_file_are_added_and_removed() {
        for before in ["", "console=\"ttya\"\n", "# no newline at the end"] {
            let after = line_edit::apply(before.as_bytes(), &add(before.as_bytes()));
            let text = String::from_utf8_lossy(&after).into_owned();
            assert_eq!(text.trim_end().replace(before.trim_end(), "").trim(), ADDED.trim_end(), "{before}");
            assert!(add(&after).is_empty(), "once");
            assert_eq!(line_edit::apply(&after, &remove(&after)), before.as_bytes());
        }
    }

    #[test]
    fn files_that_are_loaded_already_are_not_added() {
        let own = "x_load=YES\nx_type=\"file\"\nx_name=\"/a\"\nx_flags=\"name=/system/boot/./etc/ppt_aliases\" # mine\n";
        let text: String = add(own.as_bytes())
            .into_iter()
            .map(|edit| match edit {
                LineEdit::Insert(_, text) => String::from_utf8(text).unwrap() + "\n",
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(!text.contains("aliases") && text.contains("ppt_matches_load"), "{text}");
        assert_eq!(add(own.replace("YES", "NO").as_bytes()).len(), 9);
    }

    #[test]
    fn one_name_for_both_files_is_found() {
        let broken = "ppt_aliases_load=\"YES\"\nppt_aliases_type=\"file\"\n\
                      ppt_aliases_name=/etc/overlay/ppt_aliases\nppt_aliases_flags=\"name=/etc/overlay\"\n\
                      ppt_matches_load=\"YES\"\nppt_matches_type=\"file\"\n\
                      ppt_matches_name=/etc/overlay/ppt_matches\nppt_matches_flags=\"name=/etc/overlay\"\n";
        let found: Vec<(usize, &str)> =
            findings(broken.as_bytes()).iter().map(|finding| (finding.line, finding.wanted)).collect();
        assert_eq!(found, [(4, "etc/ppt_aliases"), (8, "etc/ppt_matches")]);
        let said = findings(broken.as_bytes())[0].to_string();
        assert!(said.ends_with("it has to be ppt_aliases_flags=\"name=etc/ppt_aliases\""), "{said}");
        assert!(findings(ADDED.as_bytes()).is_empty());
        assert_eq!(add(broken.as_bytes()).len(), 9);
    }

    #[test]
    fn names_are_what_the_kernel_makes_of_them() {
        for (name, expected) in [
            ("etc/ppt_aliases", "etc/ppt_aliases"),
            ("/etc/../etc/ppt_aliases", "etc/ppt_aliases"),
            ("/system/boot/etc/x", "etc/x"),
            ("../..", ""),
        ] {
            assert_eq!(canonical(name), expected);
        }
    }
}
