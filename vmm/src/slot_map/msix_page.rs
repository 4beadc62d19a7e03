//! How a guest reads the pages with a function's MSI-X table and pending bits.

use std::fmt;
use std::str::FromStr;

/// What a slot's option `msix-page` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MsixPage {
    /// Without an exit, from memory that holds both and zero elsewhere.
    #[default]
    ReadOnly,
    /// By an exit, as it writes them: for a function that has registers beside them.
    Trap,
}

/// A text that says neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of trap and read-only, which say how the guest reads MSI-X pages")]
pub struct MsixPageError(String);

impl FromStr for MsixPage {
    type Err = MsixPageError;

    fn from_str(text: &str) -> Result<MsixPage, MsixPageError> {
        match text {
            "read-only" => Ok(MsixPage::ReadOnly),
            "trap" => Ok(MsixPage::Trap),
            _ => Err(MsixPageError(text.to_owned())),
        }
    }
}

impl fmt::Display for MsixPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MsixPage::ReadOnly => "read-only",
            MsixPage::Trap => "trap",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_say_it() {
        for page in [MsixPage::ReadOnly, MsixPage::Trap] {
            assert_eq!(page.to_string().parse(), Ok(page));
        }
        for text in ["", "TRAP", "exit"] {
            assert!(text.parse::<MsixPage>().unwrap_err().to_string().contains("trap and read-only"));
        }
    }
}
