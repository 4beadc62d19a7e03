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
/// The type of what the kernel finds by its name.
const FILE: &str = "file";

/// Files by their paths on the key and the kernel's names of them.
pub type Missing = Vec<(String, &'static str)>;

/// Variables that load a file under a name that nobody looks for, or not as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the line, from 1: that of the variable, or of the one with the file's name.
    pub line: usize,
    variable: String,
    value: Option<String>,
    wanted: String,
    is_name: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { line, variable, value, wanted, is_name } = self;
        let variable = variable.escape_debug();
        let why = match is_name {
            true => "gives the file a name that nothing looks for, and files of one name are loaded once",
            false => "does not load it as a file, so that the kernel does not get it",
        };
        match value {
            Some(value) => write!(f, "line {line}: {variable}=\"{}\" {why}", value.escape_debug())?,
            None => write!(f, "line {line}: no {variable} {why}")?,
        }
        write!(f, "; it has to be {variable}=\"{wanted}\"")
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
    /// The line and the value, if there is one.
    kind: Option<(usize, String)>,
}

impl Module {
    fn is_loaded(&self) -> bool {
        self.load.eq_ignore_ascii_case("yes")
    }

    fn is_file(&self) -> bool {
        self.kind.as_ref().is_some_and(|(_, kind)| kind == FILE)
    }
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
            let kind = variables.get(&format!("{prefix}_type")).cloned();
            Module { line, prefix, load, path, flags, kind }
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

/// Files of the two that are loaded under other names, or not as files.
pub fn findings(bytes: &[u8]) -> Vec<Finding> {
    let misnamed = |module: &Module| {
        let (_, wanted) =
            FILES.into_iter().find(|(_, name)| module.path.rsplit('/').next() == name.rsplit('/').next())?;
        (name_of(&module.flags).as_deref() != Some(wanted)).then(|| Finding {
            line: module.line,
            variable: format!("{}_flags", module.prefix),
            value: Some(module.flags.clone()),
            wanted: format!("name={wanted}"),
            is_name: true,
        })
    };
    let no_file = |module: &Module| {
        let name = name_of(&module.flags)?;
        let is_meant = FILES.iter().any(|(_, wanted)| *wanted == name);
        (is_meant && module.is_loaded() && !module.is_file()).then(|| Finding {
            line: module.kind.as_ref().map_or(module.line, |(line, _)| *line),
            variable: format!("{}_type", module.prefix),
            value: module.kind.as_ref().map(|(_, kind)| kind.clone()),
            wanted: FILE.to_owned(),
            is_name: false,
        })
    };
    let modules = modules(bytes);
    let mut findings: Vec<Finding> =
        modules.iter().flat_map(|module| [misnamed(module), no_file(module)]).flatten().collect();
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// From where a file with this name is loaded: the numbers of the lines that name it so, from 1, and the paths.
pub fn loaded(bytes: &[u8], name: &str) -> Vec<(usize, String)> {
    let loaded = modules(bytes).into_iter().filter(|module| module.is_loaded() && module.is_file());
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
        lines.push(format!("{prefix}_type=\"{FILE}\""));
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
        let found = findings(broken.as_bytes());
        let found: Vec<(usize, &str)> =
            found.iter().map(|finding| (finding.line, finding.wanted.as_str())).collect();
        assert_eq!(found, [(4, "name=etc/ppt_aliases"), (8, "name=etc/ppt_matches")]);
        let said = findings(broken.as_bytes())[0].to_string();
        assert!(said.ends_with("it has to be ppt_aliases_flags=\"name=etc/ppt_aliases\""), "{said}");
        assert!(findings(ADDED.as_bytes()).is_empty());
        assert_eq!(add(broken.as_bytes()).len(), 9);
    }

    #[test]
    fn what_is_not_loaded_as_a_file_is_not_loaded() {
        let with = |kind: &str| {
            format!("x_load=YES\nx_name=/overlay/etc/ppt_aliases\nx_flags=\"name=etc/ppt_aliases\"\n{kind}")
        };
        let says = |text: &str| findings(text.as_bytes()).iter().map(ToString::to_string).collect::<Vec<_>>();
        for (kind, said) in [
            ("", "line 3: no x_type does not load it as a file, so that the kernel does not get it"),
            ("x_type=\"rootfs\"\n", "line 4: x_type=\"rootfs\" does not load it"),
            ("x_type=file\nx_type=\"FILE\"\n", "line 5: x_type=\"FILE\" does not load it"),
        ] {
            let text = with(kind);
            assert!(loaded(text.as_bytes(), "etc/ppt_aliases").is_empty(), "{kind}");
            assert_eq!(add(text.as_bytes()).len(), 9, "both are added");
            let found = says(&text);
            assert!(found.len() == 1 && found[0].starts_with(said), "{found:?}");
            assert!(found[0].ends_with("; it has to be x_type=\"file\""), "{found:?}");
        }
        let text = with("x_type=file # mine\n");
        assert_eq!(loaded(text.as_bytes(), "etc/ppt_aliases"), [(3, "/overlay/etc/ppt_aliases".to_owned())]);
        assert!(says(&text).is_empty());
        assert!(says(&with("").replace("YES", "NO")).is_empty(), "nor meant to be");
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
