//! The boot key of a SmartOS machine: the two files that its kernel gets as boot modules, and the lines that make its boot
//! loader load them: what changes in which of its files ([`ppt_files::boot_key`] has how).

use std::path::{Path, PathBuf};

use ppt_files::boot_key::{FILES, Paths, menu, variables};
use ppt_files::file_text::{ReadError, lines, quoted};
use ppt_files::ppt_aliases::{self, PptAliases};
use ppt_files::ppt_matches::PptMatches;

use super::carry_out::bytes_of;
use super::change::{Change, Edit, LinesChange};
use super::meaning::{AliasFile, remarks};
use super::plan::Plan;
use super::refusal::Refusal;
use crate::host::physical_path::{self, PathError};

const MENU: &str = "boot/grub/menu.lst";
const VARIABLES: [&str; 2] = ["boot/loader.conf", "boot/loader.conf.local"];

/// A key that cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is none.
    #[error("{}: no boot key of SmartOS is mounted there: it has neither {MENU} nor {}", .0.display(), VARIABLES[0])]
    NoKey(PathBuf),
    /// Names of another kind.
    #[error(
        "{}: on a boot key devices are named by physical path (/pci@0,0/pci8086,151@1/display@0) or by ids \
         (pciex8086,37d2){}", quoted(name.as_bytes()), reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    )]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it, if it is nearly one.
        reason: Option<ppt_aliases::EditError>,
    },
    /// A physical path that is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// One of the two files is loaded from where none is.
    #[error(
        "{}: line {line}: it loads {name} from {}, which is not on the key; put the file there, or remove the line",
        file.display(), quoted(path.as_bytes())
    )]
    NotOnKey {
        /// The boot loader's file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What the kernel calls it.
        name: &'static str,
        /// Where it would be.
        path: String,
    },
    /// One of the two files is loaded from several places.
    #[error(
        "{}: line {line}: it loads {name} from {}, and another line from {}; have them load the same file",
        file.display(), quoted(path.as_bytes()), quoted(other.as_bytes())
    )]
    Several {
        /// The boot loader's file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What the kernel calls it.
        name: &'static str,
        /// Where it is for this line.
        path: String,
        /// Where it is for another.
        other: String,
    },
    /// It is not there.
    #[error("{name}: {} has no line for it", file.display())]
    NotReserved {
        /// As given.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Anything else.
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

/// A line by which a boot loader loads one of the two files.
struct Loaded {
    file: PathBuf,
    line: usize,
    path: String,
}

fn on_key(directory: &Path, path: &str) -> PathBuf {
    directory.join(path.trim_start_matches('/'))
}

/// Where a file is that may be loaded already: what is edited has to be what is loaded.
fn place(
    directory: &Path,
    (usual, name): (&str, &'static str),
    loaded: Vec<Loaded>,
) -> Result<String, KeyError> {
    let same = |one: &str, other: &str| on_key(directory, one) == on_key(directory, other);
    let mut loaded = loaded.into_iter();
    let Some(first) = loaded.next() else { return Ok(usual.to_owned()) };
    if let Some(Loaded { file, line, path }) = loaded.find(|other| !same(&other.path, &first.path)) {
        return Err(KeyError::Several { file, line, name, path, other: first.path });
    }
    let Loaded { file, line, path } = first;
    if same(&path, usual) {
        return Ok(usual.to_owned());
    }
    let is_there = on_key(directory, &path).is_file() && !path.split('/').any(|part| part == "..");
    if is_there { Ok(path) } else { Err(KeyError::NotOnKey { file, line, name, path }) }
}

struct Key {
    paths: Paths,
    aliases: PathBuf,
    matches: PathBuf,
    menu: Option<PathBuf>,
    /// Those that exist, and the one that is written.
    variables: Option<(Vec<PathBuf>, PathBuf)>,
}

impl Key {
    fn find(directory: &Path) -> Result<Key, KeyError> {
        let menu = Some(directory.join(MENU)).filter(|path| path.is_file());
        let files: Vec<PathBuf> =
            VARIABLES.iter().map(|path| directory.join(path)).filter(|path| path.is_file()).collect();
        let [_, local] = VARIABLES;
        let variables = (!files.is_empty()).then(|| (files, directory.join(local)));
        if menu.is_none() && variables.is_none() {
            return Err(KeyError::NoKey(directory.to_owned()));
        }
        let mut paths = FILES.map(|(path, _)| path.to_owned());
        for (path, (usual, name)) in paths.iter_mut().zip(FILES) {
            *path = place(directory, (usual, name), Key::loaded(menu.as_deref(), variables.as_ref(), name)?)?;
        }
        let [aliases, matches] = paths.each_ref().map(|path| on_key(directory, path));
        Ok(Key { paths, aliases, matches, menu, variables })
    }

    fn loaded(
        menu: Option<&Path>,
        variables: Option<&(Vec<PathBuf>, PathBuf)>,
        name: &str,
    ) -> Result<Vec<Loaded>, KeyError> {
        let mut loaded = Vec::new();
        if let Some(file) = menu {
            let found = menu::loaded(&bytes_of(file)?.unwrap_or_default(), name).into_iter();
            loaded.extend(found.map(|(line, path)| Loaded { file: file.to_owned(), line, path }));
        }
        let Some((files, _)) = variables else { return Ok(loaded) };
        // Both files are one list of variables for the loader.
        let (mut all, mut starts) = (Vec::new(), Vec::new());
        for file in files {
            starts.push((file, lines(&all).count()));
            all.extend(bytes_of(file)?.unwrap_or_default());
            all.push(b'\n');
        }
        for (line, path) in variables::loaded(&all, name) {
            let start = starts.iter().rev().find(|(_, start)| line > *start);
            let of = |(file, start): &(&PathBuf, usize)| Loaded {
                file: file.to_path_buf(),
                line: line - start,
                path,
            };
            loaded.extend(start.map(of));
        }
        Ok(loaded)
    }
}

/// The alias that this name is, as illumos writes it.
fn alias(name: &str) -> Result<String, KeyError> {
    let error = |reason| KeyError::Name { name: name.to_owned(), reason };
    let alias = match physical_path::is_physical(name) {
        true => physical_path::canonical(name)?,
        false if name.starts_with("pci") => name.to_owned(),
        false => return Err(error(None)),
    };
    PptAliases::default().add(alias.as_bytes()).map_err(|reason| error(Some(reason)))?;
    Ok(alias)
}

fn aliases(names: &[String]) -> Result<Vec<String>, KeyError> {
    names.iter().map(|name| alias(name)).collect()
}

/// What the files have without the effect that it seems to have.
fn findings(plan: &mut Plan, key: &Key) -> Result<(), KeyError> {
    plan.notes.extend(AliasFile::read(&key.aliases)?.remarks());
    let matches = PptMatches::parse(&bytes_of(&key.matches)?.unwrap_or_default());
    plan.notes.extend(remarks(&key.matches, matches.findings()));
    Ok(())
}

/// What reserves these on the key at `directory`.
pub fn reserve(directory: &Path, names: &[String]) -> Result<Plan, KeyError> {
    let key = Key::find(directory)?;
    let aliases = aliases(names)?;
    let mut plan = Plan::default();
    findings(&mut plan, &key)?;
    let matched = |alias: &&String| match PptMatches::default().add(alias) {
        Ok(_) => true,
        Err(finding) => {
            plan.notes.push(format!("{alias}: not in ppt_matches, where it {}", finding.reason));
            false
        }
    };
    let matches: Vec<Edit> =
        aliases.iter().filter(matched).map(|alias| Edit::AddMatch(alias.clone())).collect();
    let aliases = aliases.into_iter().map(|alias| Edit::AddAlias(alias.into_bytes())).collect();
    plan.changes.push(Change::Lines(LinesChange { path: key.aliases, edits: aliases }));
    plan.changes.push(Change::Lines(LinesChange { path: key.matches, edits: matches }));
    // What loads the files comes when they are there.
    if let Some(path) = key.menu {
        plan.changes
            .push(Change::Lines(LinesChange { path, edits: vec![Edit::AddModules(key.paths.clone())] }));
    }
    if let Some((files, path)) = key.variables {
        let mut all = Vec::new();
        for file in files {
            let bytes = bytes_of(&file)?.unwrap_or_default();
            let findings = variables::findings(&bytes);
            plan.notes.extend(findings.iter().map(|finding| format!("{}: {finding}", file.display())));
            all.extend(bytes);
            all.push(b'\n');
        }
        // Both files are one list of variables for the loader.
        let missing = variables::missing(&all, &key.paths);
        if !missing.is_empty() {
            plan.changes.push(Change::Lines(LinesChange { path, edits: vec![Edit::AddVariables(missing)] }));
        }
    }
    Ok(plan)
}

/// What takes it back. The lines that load the files go with the last device.
pub fn release(directory: &Path, names: &[String]) -> Result<Plan, KeyError> {
    let key = Key::find(directory)?;
    let mut plan = Plan::default();
    findings(&mut plan, &key)?;
    let file = AliasFile::read(&key.aliases)?;
    let is_there = |alias: &str| file.places().any(|place| place.alias == alias.as_bytes());
    let mut aliases = Vec::new();
    for name in names {
        // What illumos would not find is taken out as it is written.
        let alias = if is_there(name) { name.clone() } else { alias(name)? };
        if !is_there(&alias) {
            return Err(KeyError::NotReserved { name: name.clone(), file: key.aliases });
        }
        aliases.push(alias);
    }
    let is_last = file.places().all(|place| aliases.iter().any(|alias| alias.as_bytes() == place.alias));
    if is_last {
        if let Some(path) = key.menu {
            plan.changes.push(Change::Lines(LinesChange {
                path,
                edits: vec![Edit::RemoveModules(key.paths.clone())],
            }));
        }
        if let Some((_, path)) = key.variables {
            let missing = variables::missing(&[], &key.paths);
            plan.changes
                .push(Change::Lines(LinesChange { path, edits: vec![Edit::RemoveVariables(missing)] }));
        }
    }
    let matches = aliases.iter().map(|alias| Edit::RemoveMatch(alias.clone())).collect();
    let aliases = aliases.into_iter().map(|alias| Edit::RemoveAlias(alias.into_bytes())).collect();
    plan.changes.push(Change::Lines(LinesChange { path: key.matches, edits: matches }));
    plan.changes.push(Change::Lines(LinesChange { path: key.aliases, edits: aliases }));
    Ok(plan)
}

#[cfg(test)]
mod tests;
