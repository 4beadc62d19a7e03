//! Which functions of a host the lines of an alias file mean.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use passthru::pci::HostAddress;
use ppt_files::file_text::ReadError;
use ppt_files::ppt_aliases::{DRIVER, PptAliases};

use super::inventory::{Function, Inventory};

/// The most lines of a file that are named.
const MOST_FINDINGS: usize = 20;

/// What is to be said of lines of a file; not of all, where there are many.
pub fn remarks(path: &Path, findings: &[impl Display]) -> Vec<String> {
    let shown = path.display();
    let lines = findings.iter().take(MOST_FINDINGS).map(|finding| format!("{shown}: {finding}"));
    let more = findings.len().saturating_sub(MOST_FINDINGS);
    let rest = (more > 0).then(|| format!("{shown}: {more} more lines like these"));
    lines.chain(rest).collect()
}

/// An alias file and where it is.
#[derive(Clone, Debug)]
pub struct AliasFile {
    /// The file.
    pub path: PathBuf,
    /// What is in it; nothing if it does not exist.
    pub aliases: PptAliases,
}

/// A place in an alias file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the line, from 1.
    pub line: usize,
    /// The alias there.
    pub alias: Vec<u8>,
}

impl AliasFile {
    /// Reads it. One that does not exist has no lines.
    pub fn read(path: &Path) -> Result<AliasFile, ReadError> {
        let aliases = match PptAliases::read(path) {
            Err(error) if error.is_absent() => PptAliases::default(),
            read => read?,
        };
        Ok(AliasFile { path: path.to_owned(), aliases })
    }

    /// What it has without effect, or with another one than it seems to have.
    pub fn remarks(&self) -> Vec<String> {
        remarks(&self.path, self.aliases.findings())
    }

    /// Each alias for the driver of guests.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.numbered()
            .filter(|(_, driver, _)| *driver == DRIVER.as_bytes())
            .map(|(line, _, alias)| Place { line, alias: alias.to_owned() })
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
        (1..).zip(self.aliases.lines()).flat_map(|(number, line)| {
            line.entry.iter().flat_map(move |entry| {
                entry.aliases.iter().map(move |alias| (number, &entry.driver[..], &alias[..]))
            })
        })
    }

    /// Where the function is meant, by whatever name.
    pub fn places_of(&self, function: &Function) -> Vec<Place> {
        let names = function.names();
        self.places().filter(|place| names.iter().any(|name| name.as_bytes() == place.alias)).collect()
    }

    /// The functions that are given to guests: those for whose most exact name in the file the first line with it says so. A
    /// line for another driver counts whether the host has such a driver or not: those of illumos are not those of Linux.
    pub fn reserved(&self, inventory: &Inventory) -> Vec<HostAddress> {
        let mut drivers: HashMap<&[u8], &[u8]> = HashMap::new();
        for (_, driver, alias) in self.numbered() {
            drivers.entry(alias).or_insert(driver);
        }
        let driver = |function: &Function| {
            function.names().iter().find_map(|name| drivers.get(name.as_bytes()).copied())
        };
        let reserved = inventory.iter().filter(|function| driver(function) == Some(DRIVER.as_bytes()));
        reserved.map(Function::address).collect()
    }

    /// The aliases that no function of the host has.
    pub fn absent(&self, inventory: &Inventory) -> Vec<Place> {
        let names: Vec<Vec<String>> = inventory.iter().map(Function::names).collect();
        let is_there = |place: &Place| names.iter().flatten().any(|name| name.as_bytes() == place.alias);
        self.places().filter(|place| !is_there(place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::compatible::Identity;

    #[test]
    fn lines_without_effect_are_told_but_not_without_end() {
        let path = PathBuf::from("/f");
        let file = |text: &str| AliasFile { path: path.clone(), aliases: PptAliases::parse(text.as_bytes()) };
        let said = file(&"ppt\n".repeat(1000)).remarks();
        assert_eq!((said.len(), said[0].as_str()), (21, "/f: line 1: ignored: no alias for 'ppt'"));
        assert_eq!(said[20], "/f: 980 more lines like these");
        assert_eq!(file(&"ppt\n".repeat(20)).remarks().len(), 20);
        assert!(file("ppt \"pci8086,1\"\n").remarks().is_empty());
    }

    proptest! {
        /// Whatever illumos calls a function is an alias that can be written.
        #[test]
        fn names_that_a_function_has_are_aliases(
            (vendor, device, revision) in any::<(u16, u16, u8)>(),
            subsystem in any::<Option<(u16, u16)>>(),
            (class, header, express) in (0_u32..1 << 24, 0_u8..3, any::<bool>()),
        ) {
            let identity = Identity { vendor, device, subsystem, revision, class, header, express };
            for name in identity.names().into_iter().chain([identity.id_alias()]) {
                let aliases = PptAliases::parse(format!("ppt \"{name}\"\n").as_bytes());
                prop_assert_eq!(aliases.findings(), &[], "{}", name);
            }
        }
    }
}
