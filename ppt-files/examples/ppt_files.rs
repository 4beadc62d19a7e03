//! Looks at and changes the two files, on an illumos or a Linux host.
//!
//! usage: ppt_files check | add ALIAS… | remove ALIAS…
//!
//! `check` prints every line that has no effect, or another than it seems to have, and exits with 1 if there is one.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use ppt_files::file_text;
use ppt_files::line_edit;
use ppt_files::ppt_aliases::{self, PptAliases};
use ppt_files::ppt_matches::{self, PptMatches};
use ppt_files::replace_file::{self, DirectoryLock};

fn check() -> Result<bool, Box<dyn Error>> {
    let mut findings = Vec::new();
    match PptMatches::find(&ppt_matches::LOOKUP)? {
        Some((path, file)) => {
            findings.extend(file.findings().iter().map(|found| format!("{}: {found}", path.display())));
        }
        None => println!("there is no ppt_matches: no function may be given to guests"),
    }
    let aliases = match PptAliases::read(Path::new(ppt_aliases::PATH)) {
        Err(error) if error.is_absent() => PptAliases::default(),
        read => read?,
    };
    findings.extend(aliases.findings().iter().map(|found| format!("{}: {found}", ppt_aliases::PATH)));
    findings.iter().for_each(|finding| println!("{finding}"));
    Ok(findings.is_empty())
}

/// One alias after the other: each change is made of the file as the one before left it.
fn change(aliases: &[String], adds: bool) -> Result<(), Box<dyn Error>> {
    let path = Path::new(ppt_aliases::PATH);
    let _lock = DirectoryLock::take(path.parent().unwrap_or(path))?;
    let before = match file_text::read(path) {
        Err(error) if error.is_absent() => Vec::new(),
        read => read?,
    };
    let mut bytes = before.clone();
    for alias in aliases {
        let file = PptAliases::parse(&bytes);
        let alias = alias.as_bytes();
        let edits = if adds { file.add(alias)? } else { file.remove(alias) };
        line_edit::difference(&bytes, &edits).iter().for_each(|line| println!("{line}"));
        bytes = line_edit::apply(&bytes, &edits);
    }
    if bytes != before {
        replace_file::replace(path, &bytes)?;
        println!("in effect with the next boot");
    }
    Ok(())
}

fn run(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    match arguments.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("check", [])) if !check()? => return Ok(ExitCode::FAILURE),
        Some(("check", [])) => {}
        Some(("add", aliases @ [_, ..])) => change(aliases, true)?,
        Some(("remove", aliases @ [_, ..])) => change(aliases, false)?,
        _ => {
            eprintln!("usage: ppt_files check | add ALIAS… | remove ALIAS…");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
