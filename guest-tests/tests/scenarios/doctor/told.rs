//! What `slotpass doctor` said, taken apart.

use std::path::Path;

use guest_tests::{Failure, GuestRun, Machine, expect};

/// What doctor said: all of it, or of one finding, with the commands of the first remedy.
#[derive(Clone, Debug)]
pub struct Told {
    pub code: i32,
    pub text: String,
    pub commands: Vec<String>,
}

impl Told {
    pub fn of(machine: &mut Machine<'_>, name: &str, doctor: &GuestRun) -> Result<Told, Failure> {
        let report = machine.run(name, doctor)?;
        expect!(report.messages().is_empty(), "doctor complains: {}", report.messages());
        Ok(Told { code: report.code(), text: report.serial().to_owned(), commands: Vec::new() })
    }

    /// What is explained of a finding, all of whose words are there.
    pub fn section(&self, level: &str, function: &str, check: &str, words: &[&str]) -> Result<Told, Failure> {
        let own = |section: &&str| {
            let Some(rest) = section.strip_prefix(level) else { return false };
            let rest = rest.trim_start();
            let rest = rest.strip_prefix(function).map_or(rest, |rest| rest.trim_start_matches(": "));
            rest.starts_with(&format!("{check}: ")) && words.iter().all(|word| rest.contains(word))
        };
        let Some(section) = self.text.split("\n\n").find(own) else {
            return Err(Failure::NotAsExpected(format!(
                "no {level} {check} with {words:?} of {function} in:\n{}",
                self.text
            )));
        };
        let remedy = section.split("\n    Or, ").next().unwrap_or_default();
        let commands = remedy.lines().filter_map(|line| line.strip_prefix("        "));
        Ok(Told {
            code: self.code,
            text: section.to_owned(),
            commands: commands.map(str::to_owned).collect(),
        })
    }

    /// The commands of the second remedy.
    pub fn second_remedy(&self) -> Told {
        let remedy = self.text.split("\n    Or, ").nth(1).unwrap_or_default();
        let commands = remedy.lines().filter_map(|line| line.strip_prefix("        "));
        Told { commands: commands.map(str::to_owned).collect(), ..self.clone() }
    }

    /// It is mended by booting without this kernel parameter.
    pub fn expect_parameter_to_leave_out(&self, parameter: &str) -> Result<(), Failure> {
        let (_, word) = self.text.split_once("without kernel parameter ").unwrap_or_default();
        let word = word.split([':', '.', '\n']).next().unwrap_or_default();
        expect!(word == parameter, "the parameter to be taken away is {word:?} in:\n{}", self.text);
        Ok(())
    }

    /// The value of an argument that is to be given to run.
    pub fn argument(&self, name: &str) -> Result<String, Failure> {
        let (_, rest) = self.text.split_once(&format!("{name} ")).unwrap_or_default();
        let value = rest.split(['.', ' ', '\n']).next().unwrap_or_default();
        expect!(!value.is_empty(), "no argument {name} in:\n{}", self.text);
        Ok(value.to_owned())
    }
}

/// The commands as they were printed, where slotpass is found as any program.
pub fn run_commands(machine: &mut Machine<'_>, name: &str, told: &Told) -> Result<(), Failure> {
    expect!(!told.commands.is_empty(), "no command in:\n{}", told.text);
    let program = machine.scenario().provisioned().slotpass();
    let folder = program.parent().unwrap_or(Path::new("/")).display().to_string();
    machine.command(name, &format!("PATH='{folder}':$PATH\n{}\n", told.commands.join("\n")))?;
    Ok(())
}
