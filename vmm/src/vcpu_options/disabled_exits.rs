//! Instructions by which a guest waits, and that it can be let do without KVM.

use std::fmt;
use std::str::FromStr;

use kvm_bindings::{KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_MWAIT, KVM_X86_DISABLE_EXITS_PAUSE};

/// Names, and KVM's bits (`KVM_CAP_X86_DISABLE_EXITS`).
const NAMES: [(&str, u32); 3] = [
    ("hlt", KVM_X86_DISABLE_EXITS_HLT),
    ("pause", KVM_X86_DISABLE_EXITS_PAUSE),
    ("mwait", KVM_X86_DISABLE_EXITS_MWAIT),
];

/// Instructions that the guest executes without an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisabledExits(u32);

impl DisabledExits {
    /// As KVM has them; others that it has besides are left out.
    pub fn from_bits(bits: u32) -> DisabledExits {
        DisabledExits(NAMES.iter().fold(0, |known, (_, bit)| known | bits & bit))
    }

    /// As KVM has them.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// None.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// MONITOR and MWAIT are among them.
    pub fn has_mwait(self) -> bool {
        self.0 & KVM_X86_DISABLE_EXITS_MWAIT != 0
    }

    /// Those that are not among others.
    pub fn without(self, others: DisabledExits) -> DisabledExits {
        DisabledExits(self.0 & !others.0)
    }
}

impl fmt::Display for DisabledExits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| *name).collect();
        f.write_str(if names.is_empty() { "nothing" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

/// A text that names none, or others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a list of hlt, pause and mwait, such as hlt,pause")]
pub struct DisabledExitsError(String);

impl FromStr for DisabledExits {
    type Err = DisabledExitsError;

    fn from_str(text: &str) -> Result<DisabledExits, DisabledExitsError> {
        let bit = |part: &str| NAMES.iter().find(|(name, _)| *name == part).map(|(_, bit)| *bit);
        let bits = text.split(',').try_fold(0, |bits, part| Some(bits | bit(part)?));
        bits.map(DisabledExits).ok_or_else(|| DisabledExitsError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, said) in [
            ("hlt", Some("hlt")),
            ("mwait,hlt", Some("hlt,mwait")),
            ("hlt,hlt", Some("hlt")),
            ("pause,mwait,hlt", Some("hlt,pause,mwait")),
            ("", None),
            ("hlt,", None),
            ("HLT", None),
            ("hlt pause", None),
            ("cstate", None),
        ] {
            let got = text.parse::<DisabledExits>();
            assert_eq!(got.as_ref().map(ToString::to_string).ok().as_deref(), said, "{text}");
            if let Err(error) = got {
                assert!(error.to_string().starts_with(&format!("'{text}' is not a list")), "{error}");
            }
        }
        let all = DisabledExits::from_bits(u32::MAX);
        assert_eq!((all.to_string().as_str(), all.bits()), ("hlt,pause,mwait", 7));
        let rest = all.without("hlt".parse().unwrap());
        assert_eq!((rest.to_string().as_str(), rest.has_mwait()), ("pause,mwait", true));
        assert_eq!(DisabledExits::default().to_string(), "nothing");
    }
}
