//! Which functions of a host the lines of an alias file mean.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use passthru::pci::HostAddress;
use ppt_files::file_text::ReadError;
use ppt_files::ppt_aliases::{DRIVER, PptAliases};

use super::inventory::{Function, Inventory};

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

    /// The functions that are given to guests: those for whose most exact name in the file the first line with it says so.
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
