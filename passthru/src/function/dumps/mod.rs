//! Real functions: what their configuration space holds (`*.dump`), and what a guest finds and can change of it
//! (`*.guest`), so that a rule that changes shows as a difference.
//!
//! A dump has a comment that says what it is of and where it is from, `bar INDEX SIZE` for each BAR, `extended` if there
//! are 4096 bytes, and lines as lspci prints them; lines of zeros are left out. After a change of a rule,
//! `SLOTPASS_UPDATE_DUMPS=1 cargo test -p passthru dumps` writes the second kind anew, for its author to read.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::policy::Place;
use super::test_support::report;
use super::*;
use crate::host::Region;

/// A port of 8 GT/s and 4 lanes.
const PORT: Place = Place::BehindPort { speed: 3, width: 4 };

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/function/dumps");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "dump"))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Description {
    let extended = text.lines().any(|line| line == "extended");
    let mut description = Description {
        config: vec![0; if extended { EXPRESS_SIZE } else { CONVENTIONAL_SIZE }],
        ..Description::default()
    };
    for line in text.lines().filter(|l| !l.starts_with('#') && *l != "extended") {
        if let Some(bar) = line.strip_prefix("bar ") {
            let (index, size) = bar.split_once(" 0x").unwrap();
            let size = u64::from_str_radix(size, 16).unwrap();
            description.bars[index.parse::<usize>().unwrap()] =
                Region { size, mappable: Vec::new(), accessible: true };
        } else {
            let (offset, bytes) = line.split_once(": ").unwrap();
            let offset = usize::from_str_radix(offset, 16).unwrap();
            for (at, byte) in bytes.split(' ').enumerate() {
                description.config[offset + at] = u8::from_str_radix(byte, 16).unwrap();
            }
        }
    }
    description
}

fn guest(description: &Description, place: Place) -> (Function, Vec<Problem>) {
    let report = Report { intx: true, ..report() };
    Function::new(description, &report, Shape { place, ..Shape::default() }).unwrap()
}

/// One line for each dword in which something is, or that differs from `other`'s: what it reads, without what is the
/// function's to say, and which bits a guest can write, are the function's to say, and whose writes go there.
fn view(function: &Function, other: Option<&Function>) -> String {
    let dword = |offset| function.registers().dword(offset);
    let mut text = String::new();
    let mut offset = 0;
    while usize::from(offset) < function.registers().len() {
        let r = dword(offset);
        let same = other.is_some_and(|other| other.registers().dword(offset) == r);
        let mut end = offset + 4;
        if same || (other.is_none() && r == Default::default()) {
            offset = end;
            continue;
        }
        let all = if r.forward == u32::MAX { "the function's own" } else { "read from the function" };
        if r.live == u32::MAX && (r.forward == u32::MAX || r.forward == 0) {
            while dword(end).live == r.live && dword(end).forward == r.forward {
                end += 4;
            }
            writeln!(text, "{offset:03x}-{:03x}  {all}", end - 1).unwrap();
        } else {
            write!(text, "{offset:03x}      {:08x}", r.shadow & !r.live).unwrap();
            for (name, bits) in [("write", r.writable), ("live", r.live), ("forward", r.forward)] {
                if bits != 0 {
                    write!(text, "  {name} {bits:08x}").unwrap();
                }
            }
            text.push('\n');
        }
        offset = end;
    }
    text
}

fn kept(description: &Description) -> String {
    let (root_bus, problems) = guest(description, Place::RootBus);
    let (port, _) = guest(description, PORT);
    let mut text = String::new();
    for problem in problems {
        writeln!(text, "problem: {problem}").unwrap();
    }
    writeln!(text, "on a root bus:\n{}", view(&root_bus, None)).unwrap();
    write!(text, "behind a port of 8 GT/s and 4 lanes, where it differs:\n{}", view(&port, Some(&root_bus)))
        .unwrap();
    text
}

#[test]
fn guests_find_what_is_kept() {
    let update = std::env::var_os("SLOTPASS_UPDATE_DUMPS").is_some();
    let files = files();
    assert!(files.len() >= 27, "{} dumps", files.len());
    let mut different = Vec::new();
    for file in files {
        let found = kept(&parse(&std::fs::read_to_string(&file).unwrap()));
        let file = file.with_extension("guest");
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if update {
            std::fs::write(&file, &found).unwrap();
        } else if found != expected {
            let difference = difference(&expected, &found);
            different.push(format!("{}:\n{difference}", file.file_name().unwrap().display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Lines that are only in one of two texts.
fn difference(before: &str, after: &str) -> String {
    let only = |sign: char, of: &str, other: &str| -> String {
        of.lines().filter(|l| !other.lines().any(|o| o == *l)).map(|l| format!("{sign} {l}\n")).collect()
    };
    only('-', before, after) + &only('+', after, before)
}

/// What the kept texts must not say, whoever updates them.
#[test]
fn guests_find_no_capability_that_is_hidden() {
    for file in files() {
        let description = parse(&std::fs::read_to_string(&file).unwrap());
        for place in [Place::RootBus, PORT] {
            let (function, _) = guest(&description, place);
            let dword = |offset| function.registers().dword(offset).shadow;
            let mut next = dword(EXTENDED_CAPABILITIES) >> 20;
            let mut ids = vec![dword(EXTENDED_CAPABILITIES) as u16];
            while next != 0 {
                ids.push(dword(next as u16) as u16);
                next = dword(next as u16) >> 20;
            }
            let shown = [0, extended_id::AER, extended_id::SERIAL_NUMBER, extended_id::VENDOR];
            assert!(ids.iter().all(|id| shown.contains(id)), "{}: {ids:x?}", file.display());
        }
    }
}
