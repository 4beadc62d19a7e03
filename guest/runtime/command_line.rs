//! The command line: words between blanks, each `name` or `name=value`.

use crate::slot::Slot;

#[derive(Clone, Copy, Debug)]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    #[must_use]
    pub fn text(self) -> &'a str {
        self.0.trim_ascii()
    }

    /// Name and value (empty without `=`) of each word, in order.
    pub fn words(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.words().any(|word| word.0 == name)
    }

    /// The value of the last `name=value`: what is appended to a command line overrides it.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.words().filter(|word| word.0 == name).last().map(|word| word.1)
    }

    /// A decimal number, or a hexadecimal one after `0x`. `None` if it is absent or not a number.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u64> {
        number(self.value(name)?)
    }

    /// `None` if it is absent or not a slot.
    #[must_use]
    pub fn slot(self, name: &str) -> Option<Slot> {
        Slot::parse(self.value(name)?)
    }
}

#[must_use]
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, number};

    #[test]
    fn words_are_found_by_name() {
        let line = CommandLine::new("  edu=0:8:2 poweroff\tcode=0x10 code=7 x=a=b ");
        assert_eq!(line.words().count(), 5);
        assert!(line.has("poweroff") && !line.has("power"));
        assert_eq!(line.value("x"), Some("a=b"));
        assert_eq!(line.number("code"), Some(7), "the last one counts");
        assert_eq!(line.number("edu"), None);
        assert_eq!(line.slot("edu").unwrap().to_string(), "00:08.2");
        assert_eq!(line.slot("poweroff"), None);
    }

    #[test]
    fn numbers() {
        for (text, value) in
            [("0", Some(0)), ("0x1f", Some(31)), ("255", Some(255)), ("", None), ("1x", None), ("0x", None)]
        {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
