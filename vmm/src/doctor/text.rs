//! Findings for a person: a line each, then what is wrong and what mends it. Commands are lines of their own, behind eight
//! spaces, where nothing else is.

use std::fmt::Write;

use super::Diagnosis;
use super::finding::{Finding, Level, Subject, Verdict};

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without colours.
    Plain,
    /// For a terminal.
    Colours,
}

impl Style {
    fn level(self, level: Level) -> String {
        let (name, colour) = match level {
            Level::Ok => ("ok", 32),
            Level::Note => ("note", 33),
            Level::Unknown => ("unknown", 33),
            Level::Problem => ("problem", 31),
        };
        match self {
            Style::Plain => format!("{name:<8}"),
            Style::Colours => format!("\x1b[{colour}m{name:<8}\x1b[0m"),
        }
    }
}

/// All of it. Writing to a text does not fail.
pub fn of(diagnosis: &Diagnosis, style: Style) -> String {
    let mut text = String::new();
    let findings = &diagnosis.findings;
    let mut subjects: Vec<&Subject> = Vec::new();
    for finding in findings {
        if !subjects.contains(&&finding.subject) {
            subjects.push(&finding.subject);
        }
    }
    for subject in subjects {
        let _ = writeln!(text, "{}", heading(subject));
        for finding in findings.iter().filter(|finding| finding.subject == *subject) {
            let (level, title) = (style.level(finding.level), finding.check.title());
            let _ = writeln!(text, "  {level} {title:<20} {}", shown(&finding.found));
        }
    }
    let mut worst: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
    worst.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    for finding in worst.into_iter().filter(|f| f.reason.is_some() || !f.remedies.is_empty()) {
        explain(&mut text, finding, style);
    }
    let _ = writeln!(text, "\n{}", verdict(diagnosis.verdict, findings));
    text
}

/// Names of files and devices may have any characters. A line break in one must not begin a line that looks like a command,
/// nor anything else change a terminal.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\'' | '"' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

fn heading(subject: &Subject) -> String {
    match subject {
        Subject::Host => "Host".to_owned(),
        Subject::Function(name) => format!("Function {}", shown(name)),
        Subject::Guest => "Guest".to_owned(),
    }
}

fn explain(text: &mut String, finding: &Finding, style: Style) {
    let who = match &finding.subject {
        Subject::Function(name) => format!("{}: ", shown(name)),
        Subject::Host | Subject::Guest => String::new(),
    };
    let level = style.level(finding.level);
    let (title, found) = (finding.check.title(), shown(&finding.found));
    let _ = writeln!(text, "\n{} {who}{title}: {found}", level.trim_end());
    if let Some(reason) = &finding.reason {
        let _ = writeln!(text, "    {}.", shown(reason));
    }
    for (number, remedy) in finding.remedies.iter().enumerate() {
        let or = if number == 0 { "To mend it" } else { "Or" };
        let what = match &remedy.arguments {
            Some(arguments) => format!("{}: {arguments}", remedy.what),
            None => remedy.what.clone(),
        };
        let end = if remedy.commands.is_empty() { "." } else { ":" };
        let _ = writeln!(text, "    {or}, {}{end}", shown(&what));
        for command in &remedy.commands {
            let _ = writeln!(text, "        {}", shown(command));
        }
    }
}

fn verdict(verdict: Verdict, findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let things = |count, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    match verdict {
        Verdict::Starts => match count(Level::Note) {
            0 => "A guest would start.".to_owned(),
            notes => format!("A guest would start; {}.", things(notes, "note")),
        },
        Verdict::Unknown => "It cannot be told whether a guest would start.".to_owned(),
        Verdict::Refused => {
            format!("A guest would not start: {}.", things(count(Level::Problem), "problem"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Check, Remedy};
    use super::super::tests::facts;
    use super::*;

    /// Of whatever names are made, nothing becomes a command but the commands.
    #[test]
    fn a_name_makes_no_line_of_its_own() {
        let evil = "x\n        rm -rf /\r\x1b[2J\u{2028}\u{202e}'\"\\é";
        let finding = Check::Kernel
            .problem(Subject::Function(evil.to_owned()), evil)
            .because(evil)
            .mended(Remedy::commands(evil, ["true".to_owned()]))
            .mended(Remedy::arguments("x", evil));
        let text = of(&Diagnosis::new(vec![finding], facts()), Style::Plain);
        let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("        ")).collect();
        assert_eq!(commands, ["true"], "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        let escaped = r#"x\n        rm -rf /\r\u{1b}[2J\u{2028}\u{202e}'"\é"#;
        assert_eq!(text.matches(escaped).count(), 7, "{text}");
    }
}
