//! How samples are printed.

use core::fmt;

/// Samples in ascending order, as a list of `VALUE*COUNT`, each after a blank; `*1` is left out.
pub struct Runs<'a>(pub &'a [u64]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for run in self.0.chunk_by(|one, next| one == next) {
            match run {
                [] => {}
                [value] => write!(f, " {value}")?,
                [value, ..] => write!(f, " {value}*{}", run.len())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn equal_samples_are_counted() {
        for (samples, text) in [
            (&[][..], ""),
            (&[0], " 0"),
            (&[7, 7, 7], " 7*3"),
            (&[1, 2, 2, 9, 9, 9, u64::MAX], " 1 2*2 9*3 18446744073709551615"),
        ] {
            assert_eq!(Runs(samples).to_string(), text);
        }
    }
}
