use crate::{Failure, expect};

/// What a run of the VMM left behind.
#[derive(Clone, Debug)]
pub struct GuestReport {
    pub(crate) name: String,
    pub(crate) code: i32,
    pub(crate) serial: String,
    pub(crate) messages: String,
}

impl GuestReport {
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The guest's serial output.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What the VMM itself said, on standard error.
    pub fn messages(&self) -> &str {
        &self.messages
    }

    pub fn expect_code(&self, code: i32) -> Result<(), Failure> {
        expect!(
            self.code == code,
            "{}: exit code {} instead of {code}; it said: {}",
            self.name,
            self.code,
            self.messages.lines().last().unwrap_or("nothing")
        );
        Ok(())
    }

    pub fn expect_serial_line(&self, line: &str) -> Result<(), Failure> {
        expect!(
            self.serial.lines().any(|l| l.trim() == line),
            "{}: no line {line:?} from the guest",
            self.name
        );
        Ok(())
    }

    pub fn expect_serial_start(&self, start: &str) -> Result<&str, Failure> {
        self.serial.lines().map(str::trim).find(|line| line.starts_with(start)).ok_or_else(|| {
            Failure::NotAsExpected(format!("{}: no line {start:?}… from the guest", self.name))
        })
    }

    /// All of these words are in what the VMM said.
    pub fn expect_message(&self, words: &[&str]) -> Result<(), Failure> {
        for word in words {
            expect!(
                self.messages.contains(word),
                "{}: {word:?} is not in what the VMM said: {}",
                self.name,
                self.messages.trim()
            );
        }
        Ok(())
    }

    /// Refused: exit code 1, nothing from a guest, and one message of one line with all of these words in it. A command
    /// line that cannot be parsed may be followed by a hint at the usage.
    pub fn expect_refusal(&self, words: &[&str]) -> Result<(), Failure> {
        self.expect_code(1)?;
        expect!(self.serial.is_empty(), "{}: the guest was started: {}", self.name, self.serial.trim());
        let lines: Vec<&str> = self
            .messages
            .lines()
            .filter(|line| !line.trim().is_empty())
            .filter(|line| !["Usage:", "For more information"].iter().any(|hint| line.starts_with(hint)))
            .collect();
        expect!(lines.len() == 1, "{}: {} lines instead of one message: {:?}", self.name, lines.len(), lines);
        self.expect_message(words)
    }

    /// What the guest printed from the last `line` on: after its last start.
    pub fn of_last_start(&self, line: &str) -> Self {
        let at = self.serial.rfind(line).unwrap_or_default();
        Self { serial: self.serial.get(at..).unwrap_or_default().to_owned(), ..self.clone() }
    }

    /// No check in the Linux guest failed, of those that were carried out.
    pub fn expect_no_failed_check(&self) -> Result<(), Failure> {
        let failed = |line: &&str| line.starts_with("check ") && line.contains(" FAILED");
        match self.serial.lines().map(str::trim).find(failed) {
            Some(line) => Err(Failure::NotAsExpected(format!("{}: {line}", self.name))),
            None => Ok(()),
        }
    }

    /// The result line of a check in the Linux guest's /init, which must have passed.
    pub fn check(&self, name: &str) -> Result<Check, Failure> {
        let line = self.expect_serial_start(&format!("check {name} "))?;
        let words: Vec<String> = line.split_whitespace().skip(2).map(str::to_owned).collect();
        expect!(words.first().is_some_and(|word| word == "ok"), "{}: {line}", self.name);
        Ok(Check { name: name.to_owned(), words })
    }
}

/// A passed check: its words are pairs of a name and a value.
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    words: Vec<String>,
}

impl Check {
    pub fn value(&self, name: &str) -> Result<&str, Failure> {
        self.words
            .iter()
            .position(|word| word == name)
            .and_then(|at| self.words.get(at + 1))
            .map(String::as_str)
            .ok_or_else(|| Failure::NotAsExpected(format!("check {} says nothing of {name}", self.name)))
    }

    pub fn number(&self, name: &str) -> Result<u64, Failure> {
        let value = self.value(name)?;
        value.parse().map_err(|_| {
            Failure::NotAsExpected(format!("check {}: {name} is {value}, not a number", self.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: i32, serial: &str, messages: &str) -> GuestReport {
        GuestReport { name: "run".to_owned(), code, serial: serial.to_owned(), messages: messages.to_owned() }
    }

    #[test]
    fn a_check_counts_only_if_it_passed() {
        let report = report(0, "guest: up\ncheck nvme ok mib 64 sha256 aa\ncheck nic FAILED no answer\n", "");
        let nvme = report.check("nvme").unwrap();
        assert_eq!(nvme.number("mib").unwrap(), 64);
        assert_eq!(nvme.value("sha256").unwrap(), "aa");
        assert!(nvme.number("sha256").is_err() && nvme.value("interrupts").is_err());
        assert!(report.check("nic").is_err() && report.check("memory").is_err());
    }

    #[test]
    fn a_refusal_is_one_message_and_no_guest() {
        let message = "slotpass: 0000:00:04.0: no\n";
        for (refusal, right) in [
            (report(1, "", message), true),
            (report(1, "", &format!("{message}\nFor more information, try '--help'.\n")), true),
            (report(0, "", message), false),
            (report(1, "guest: up", message), false),
            (report(1, "", &message.repeat(2)), false),
            (report(1, "", "slotpass: no\n"), false),
            (report(1, "", ""), false),
        ] {
            assert_eq!(refusal.expect_refusal(&["0000:00:04.0", "no"]).is_ok(), right, "{refusal:?}");
        }
    }
}
