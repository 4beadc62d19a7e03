//! Words of commands.

/// A word of a shell, as it is where nothing in it means something to one.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:=@/+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_the_shell_makes_of_them() {
        for word in ["intel_iommu=on", "", "a b", "$(x) `y` !z", "it's 'so'", "\"\\\n;&|"] {
            let command = format!("printf %s {}", quoted(word));
            let said = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
        assert_eq!(quoted("12@0000:01:00.0"), "12@0000:01:00.0");
    }
}
