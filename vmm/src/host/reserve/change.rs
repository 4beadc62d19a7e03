//! What is changed in a host, one step after the other; as shell commands for who wants to see it first.

use std::fmt;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;
use ppt_files::boot_key::{self, menu, variables};
use ppt_files::file_text::ReadError;
use ppt_files::line_edit::{self, LineEdit};
use ppt_files::ppt_aliases::{self, PptAliases};
use ppt_files::ppt_matches::{self, PptMatches};
use ppt_files::replace_file::WriteError;

use super::inventory::Function;

/// A step. The next one begins when it is done.
#[derive(Clone, Debug)]
pub enum Change {
    /// Lines of a file.
    Lines(LinesChange),
    /// A file that is this program's own.
    Whole(WholeFile),
    /// The module with the driver for guests.
    LoadDriver,
    /// A function to vfio-pci.
    ToVfio(Switch),
    /// A function to the driver that it has in the host.
    ToHost(Switch),
}

/// A function and what it is like before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The function.
    pub address: HostAddress,
    /// Who has it.
    pub driver: Option<String>,
    /// The only driver that may take it.
    pub driver_override: Option<String>,
    /// How its modules are found.
    pub modalias: Option<String>,
}

impl Switch {
    /// From what is known of a function.
    pub fn of(function: &Function) -> Switch {
        Switch {
            address: function.address(),
            driver: function.sysfs.driver.clone(),
            driver_override: function.driver_override(),
            modalias: function.modalias(),
        }
    }

    /// A VFIO driver has it.
    pub fn is_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(sysfs::is_vfio)
    }

    /// Which override has to be written for vfio-pci. A function of another VFIO driver keeps that.
    pub fn new_override(&self) -> bool {
        let other = self.is_vfio() && self.driver.as_deref() != Some(sysfs::DRIVER);
        !other && self.driver_override.as_deref() != Some(sysfs::DRIVER)
    }

    /// An override keeps the host's drivers from it.
    pub fn clear_override(&self) -> bool {
        self.driver_override.as_deref().is_some_and(sysfs::is_vfio)
    }

    /// It is as `reserve` leaves it.
    pub fn is_reserved(&self) -> bool {
        self.is_vfio() && !self.new_override()
    }

    /// It is as `release` leaves it, as far as that can be told.
    pub fn is_released(&self) -> bool {
        !self.is_vfio() && !self.clear_override() && self.driver.is_some()
    }

    fn to_vfio(&self) -> Vec<String> {
        let directory = format!("{}/{}", sysfs::DEVICES, self.address);
        let mut commands = Vec::new();
        if self.new_override() {
            commands.push(format!("echo {} >{directory}/driver_override", sysfs::DRIVER));
        }
        if !self.is_vfio() {
            if self.driver.is_some() {
                commands.push(format!("echo {} >{directory}/driver/unbind", self.address));
            }
            commands.push(format!("echo {} >/sys/bus/pci/drivers_probe", self.address));
        }
        commands
    }

    fn to_host(&self) -> Vec<String> {
        let directory = format!("{}/{}", sysfs::DEVICES, self.address);
        let mut commands = Vec::new();
        if self.clear_override() {
            commands.push(format!("echo >{directory}/driver_override"));
        }
        if self.is_vfio() {
            commands.push(format!("echo {} >{directory}/driver/unbind", self.address));
        }
        if self.is_vfio() || self.driver.is_none() {
            let modules = self.modalias.iter();
            commands.extend(modules.map(|alias| format!("modprobe -q {} || true", line_edit::quoted(alias))));
            commands.push(format!("echo {} >/sys/bus/pci/drivers_probe", self.address));
        }
        commands
    }
}

/// What is added to a file, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// To a file with the grammar of `ppt_aliases`.
    AddAlias(Vec<u8>),
    /// From such a file.
    RemoveAlias(Vec<u8>),
    /// To a file with the grammar of `ppt_matches`.
    AddMatch(String),
    /// From such a file.
    RemoveMatch(String),
    /// The modules of the two files to GRUB's menu.
    AddModules(boot_key::Paths),
    /// From it, as far as this program added them.
    RemoveModules(boot_key::Paths),
    /// The modules of the two files to the loader's variables.
    AddVariables(variables::Missing),
    /// From them, as far as this program added them.
    RemoveVariables(variables::Missing),
}

/// A file that cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// An alias.
    #[error("{}: {source}", path.display())]
    Alias {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ppt_aliases::EditError,
    },
    /// An entry that would match nothing.
    #[error("{}: {}: {}", path.display(), finding.text, finding.reason)]
    Match {
        /// The file.
        path: PathBuf,
        /// Why.
        finding: ppt_matches::Finding,
    },
    /// GRUB's menu.
    #[error("{}: {source}", path.display())]
    Menu {
        /// The file.
        path: PathBuf,
        /// Why.
        source: menu::MenuError,
    },
    /// A name that no script can have.
    #[error("{path:?}: a name with control characters, or of bytes that are no UTF-8, is not used")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Edit {
    fn lines(&self, path: &Path, bytes: &[u8]) -> Result<Vec<LineEdit>, EditError> {
        let path = || path.to_owned();
        Ok(match self {
            Edit::AddAlias(alias) => PptAliases::parse(bytes)
                .add(alias)
                .map_err(|source| EditError::Alias { path: path(), source })?,
            Edit::RemoveAlias(alias) => PptAliases::parse(bytes).remove(alias),
            Edit::AddMatch(entry) => PptMatches::parse(bytes)
                .add(entry)
                .map_err(|finding| EditError::Match { path: path(), finding })?,
            Edit::RemoveMatch(entry) => PptMatches::parse(bytes).remove(entry),
            Edit::AddModules(paths) => {
                menu::add(bytes, paths).map_err(|source| EditError::Menu { path: path(), source })?
            }
            Edit::RemoveModules(paths) => menu::remove(bytes, paths),
            Edit::AddVariables(files) => variables::add(bytes, files),
            Edit::RemoveVariables(_) => variables::remove(bytes),
        })
    }

    /// What takes it back.
    pub fn inverse(&self) -> Edit {
        match self.clone() {
            Edit::AddAlias(alias) => Edit::RemoveAlias(alias),
            Edit::RemoveAlias(alias) => Edit::AddAlias(alias),
            Edit::AddMatch(entry) => Edit::RemoveMatch(entry),
            Edit::RemoveMatch(entry) => Edit::AddMatch(entry),
            Edit::AddModules(paths) => Edit::RemoveModules(paths),
            Edit::RemoveModules(paths) => Edit::AddModules(paths),
            Edit::AddVariables(files) => Edit::RemoveVariables(files),
            Edit::RemoveVariables(files) => Edit::AddVariables(files),
        }
    }
}

/// Edits of one file, one after the other. A file without a byte is removed, and one that does not exist made with its
/// directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesChange {
    /// The file.
    pub path: PathBuf,
    /// What becomes of it.
    pub edits: Vec<Edit>,
}

/// The file after an edit that does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Before.
    pub before: Vec<u8>,
    /// What changes.
    pub lines: Vec<LineEdit>,
    /// After.
    pub after: Vec<u8>,
    /// Which edit it was.
    pub edit: Edit,
}

impl LinesChange {
    /// What the edits do to these bytes. Those that do nothing are left out.
    pub fn carried_out_on(&self, bytes: &[u8]) -> Result<Vec<Edited>, EditError> {
        let mut done: Vec<Edited> = Vec::new();
        for edit in &self.edits {
            let before = done.last().map_or(bytes, |edited| &edited.after).to_owned();
            let lines = edit.lines(&self.path, &before)?;
            if !lines.is_empty() {
                let after = line_edit::apply(&before, &lines);
                done.push(Edited { before, lines, after, edit: edit.clone() });
            }
        }
        Ok(done)
    }
}

/// A file of this program's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeFile {
    /// The file.
    pub path: PathBuf,
    /// Before; nothing if it did not exist.
    pub before: Option<Vec<u8>>,
    /// What is to be in it; nothing if it is to be removed.
    pub contents: Option<Vec<u8>>,
    /// It is a program.
    pub executable: bool,
}

/// A change as the shell commands that do the same. Those of files are preceded by the lines that change, as comments.
pub fn script(
    change: &Change,
    bytes_of: impl Fn(&Path) -> Result<Option<Vec<u8>>, ReadError>,
) -> Result<Vec<String>, EditError> {
    let comment = |line: String| format!("# {line}");
    let file = match change {
        Change::Lines(lines) => Some(&lines.path),
        Change::Whole(file) => Some(&file.path),
        _ => None,
    };
    // A newline would end the comment, and what follows be a command.
    if let Some(path) = file.filter(|path| path.to_str().is_none_or(|p| p.contains(char::is_control))) {
        return Err(EditError::Name { path: path.clone() });
    }
    Ok(match change {
        Change::Lines(lines) => {
            let bytes = bytes_of(&lines.path)?;
            let edits = lines.carried_out_on(bytes.as_deref().unwrap_or_default())?;
            let mut script = Vec::new();
            if !edits.is_empty() {
                script.push(comment(lines.path.display().to_string()));
            }
            if let Some(parent) = lines.path.parent().filter(|parent| !edits.is_empty() && !parent.is_dir()) {
                script.push(format!("mkdir -p -- {}", line_edit::quoted(&parent.to_string_lossy())));
            }
            for Edited { before, lines: changed, .. } in edits {
                script.extend(line_edit::difference(&before, &changed).into_iter().map(comment));
                script.extend(line_edit::commands(&lines.path, &before, &changed));
            }
            script
        }
        Change::Whole(file) => whole(file),
        Change::LoadDriver => vec![format!("modprobe {}", sysfs::DRIVER)],
        Change::ToVfio(switch) => switch.to_vfio(),
        Change::ToHost(switch) => switch.to_host(),
    })
}

fn whole(file: &WholeFile) -> Vec<String> {
    const END: &str = "END-OF-FILE";
    let path = file.path.to_string_lossy();
    let path = line_edit::quoted(&path);
    let Some(contents) = &file.contents else { return vec![format!("rm -f -- {path}")] };
    let mut script = vec![format!("cat >{path} <<'{END}'")];
    script.extend(String::from_utf8_lossy(contents).lines().map(str::to_owned));
    script.push(END.to_owned());
    if file.executable {
        script.push(format!("chmod 755 -- {path}"));
    }
    script
}

/// Whom a function is with, for a message.
impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.driver.as_deref().unwrap_or("no driver"))
    }
}
