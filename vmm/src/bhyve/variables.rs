//! bhyve's tree of variables: `pci.0.8.0.device` is a value below three nodes.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use super::error::{BhyveError, Fault, Origin};
use super::number;

/// Length of a key at most, in bytes. bhyve's own have a tenth of it.
const LONGEST_KEY: usize = 512;
/// Length of a value with all references resolved at most, in bytes; no path is longer (PATH_MAX).
const LONGEST_VALUE: usize = 4096;
/// References that a value may lead to.
const MOST_REFERENCES: usize = 256;
/// References within references, as bhyve allows.
const DEEPEST: usize = 15;

/// Variables, by their full names.
#[derive(Debug, Default)]
pub struct Variables(BTreeMap<String, Value>);

#[derive(Debug)]
struct Value {
    text: String,
    from: Origin,
}

impl Variables {
    /// From `KEY=VALUE`.
    pub fn assign(&mut self, text: &str, from: &Origin) -> Result<(), BhyveError> {
        match text.split_once('=') {
            Some((key, value)) if !value.is_empty() => self.set(key, value, from),
            _ => Err(Fault::NotKeyValue(text.into()).at(from)),
        }
    }

    /// A value counts until a later one for the same variable.
    pub fn set(&mut self, key: &str, value: &str, from: &Origin) -> Result<(), BhyveError> {
        let name = |part: &str| !part.is_empty() && !part.contains(char::is_control);
        if key.len() > LONGEST_KEY || !key.split('.').all(name) {
            return Err(Fault::Key(key.into()).at(from));
        }
        // What bhyve would read ends there.
        if value.contains('\0') {
            return Err(Fault::NoText.at(from));
        }
        if self.is_node(key) {
            return Err(Fault::AboveOthers(key.into()).at(from));
        }
        let mut above = key.match_indices('.').filter_map(|(dot, _)| key.get(..dot));
        if let Some(value) = above.find(|above| self.0.contains_key(*above)) {
            return Err(Fault::BelowValue { key: key.into(), value: value.into() }.at(from));
        }
        self.0.insert(key.to_owned(), Value { text: value.to_owned(), from: from.clone() });
        Ok(())
    }

    /// Whether there are variables below it.
    pub fn is_node(&self, key: &str) -> bool {
        self.below(key).next().is_some()
    }

    /// The variables below a node, and where each was set; by name.
    pub fn below(&self, node: &str) -> impl Iterator<Item = (&str, &Origin)> {
        let prefix = format!("{node}.");
        self.0
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .map(|(key, value)| (key.as_str(), &value.from))
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.0.iter().map(|(key, value)| (key.as_str(), &value.from))
    }

    /// The value with all references resolved, and where it was set.
    pub fn get(&self, key: &str) -> Result<Option<(String, &Origin)>, BhyveError> {
        let Some(Value { text, from }) = self.0.get(key) else { return Ok(None) };
        let mut expanded = Expansion { variables: self, text: String::new(), references: 0 };
        expanded.add(text, 0).map_err(|fault| fault.at(from))?;
        Ok(Some((expanded.text, from)))
    }

    /// What is true or false.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, BhyveError> {
        let Some((value, from)) = self.get(key)? else { return Ok(None) };
        let is = |words: [&str; 4]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
        match () {
            () if is(["true", "on", "yes", "1"]) => Ok(Some(true)),
            () if is(["false", "off", "no", "0"]) => Ok(Some(false)),
            () => Err(Fault::Boolean { key: key.to_owned(), value: value.into() }.at(from)),
        }
    }

    /// A number that is read in one of the ways of [`number`].
    pub fn number(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        read: fn(&str) -> Option<u64>,
    ) -> Result<Option<(u64, &Origin)>, BhyveError> {
        let Some((value, from)) = self.get(key)? else { return Ok(None) };
        match read(&value).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some((number, from))),
            None => {
                let (value, (least, most)) = (value.into(), range.into_inner());
                Err(Fault::Number { key: key.to_owned(), value, least, most }.at(from))
            }
        }
    }

    /// An integer as [`number::integer`] has it.
    pub fn integer(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<(u64, &Origin)>, BhyveError> {
        self.number(key, range, number::integer)
    }
}

/// A value whose references are being resolved.
struct Expansion<'a> {
    variables: &'a Variables,
    text: String,
    references: usize,
}

impl Expansion<'_> {
    /// bhyve knows backslashes only where there is a `%`. Its manual has `%%` for a `%`, its program `\%`.
    fn add(&mut self, value: &str, depth: usize) -> Result<(), Fault> {
        let endless = || Fault::Endless(value.into());
        let escapes = value.contains('%');
        let mut rest = value.chars();
        while let Some(next) = rest.next() {
            match next {
                '%' if rest.as_str().starts_with('%') => self.text.extend(rest.next()),
                '%' => {
                    let reference = rest.as_str().strip_prefix('(').and_then(|rest| rest.split_once(')'));
                    let (name, after) = reference
                        .filter(|(name, _)| !name.is_empty())
                        .ok_or_else(|| Fault::Percent(value.into()))?;
                    self.references += 1;
                    if depth >= DEEPEST || self.references > MOST_REFERENCES {
                        return Err(endless());
                    }
                    let target = self.variables.0.get(name).ok_or_else(|| Fault::NoVariable(name.into()))?;
                    self.add(&target.text, depth + 1)?;
                    rest = after.chars();
                }
                '\\' if escapes => self.text.extend(rest.next()),
                other => self.text.push(other),
            }
            if self.text.len() > LONGEST_VALUE {
                return Err(endless());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(lines: &[&str]) -> Result<Variables, String> {
        let mut variables = Variables::default();
        for line in lines {
            variables
                .assign(line, &Origin::Option(format!("-o {line}").into()))
                .map_err(|error| error.to_string())?;
        }
        Ok(variables)
    }

    #[test]
    fn later_values_count_and_nodes_have_none() {
        let tree = variables(&["a.b=1", "a.c=2", "a.b=3", "ab=4"]).unwrap();
        assert_eq!(tree.get("a.b").unwrap().unwrap().0, "3");
        assert_eq!(tree.below("a").map(|(key, _)| key).collect::<Vec<_>>(), ["a.b", "a.c"]);
        assert!(tree.is_node("a") && !tree.is_node("ab") && !tree.is_node("a.b"));
        for (lines, reason) in [
            (&["a.b=1", "a=2"][..], "-o a=2: \"a\" cannot have a value"),
            (&["a.b=1", "a.b.c.d=2"], "\"a.b.c.d\" is below \"a.b\""),
            (&["a"], "is not KEY=VALUE"),
            (&["a="], "is not KEY=VALUE"),
            (&["=a"], "is no name"),
            (&["a..b=1"], "is no name"),
            (&[".a=1"], "is no name"),
            (&["a.=1"], "is no name"),
            (&["a\n=1"], "is no name"),
            (&["a=b\0"], "a NUL in it"),
        ] {
            let error = variables(lines).unwrap_err();
            assert!(error.contains(reason), "{lines:?}: {error}");
        }
        assert!(variables(&[&format!("{}=1", "a.".repeat(400_000))]).unwrap_err().len() < 2000);
    }

    #[test]
    fn references_are_resolved() {
        let value = |lines: &[&str]| {
            let tree = variables(lines).unwrap();
            tree.get("x").map(|value| value.unwrap().0).map_err(|error| error.to_string())
        };
        for (lines, expanded) in [
            (&["x=/a/%(name)/b", "name=vm"][..], "/a/vm/b"),
            (&["x=%(a.b)%(a.b)", "a.b=1%(c)", "c=2"], "1212"),
            (&["x=100%%"], "100%"),
            (&[r"x=\%(name)\\"], r"%(name)\"),
            (&[r"x=a\b"], r"a\b"),
            (&[r"x=%%a\b"], "%ab"),
            (&[r"x=%%\"], "%"),
        ] {
            assert_eq!(value(lines).unwrap(), expanded, "{lines:?}");
        }
        for (lines, reason) in [
            (&["x=%"][..], "neither %(VARIABLE)"),
            (&["x=%(a"], "neither %(VARIABLE)"),
            (&["x=%()"], "neither %(VARIABLE)"),
            (&["x=%(a)"], "-o x=%(a): it refers to variable \"a\", which is not set"),
            (&["x=%(a)", "a.b=1"], "not set"),
            (&["x=%(x)"], "do not end"),
            (&["x=%(a)", "a=%(b)%(b)", "b=%(x)"], "do not end"),
        ] {
            let error = value(lines).unwrap_err();
            assert!(error.contains(reason), "{lines:?}: {error}");
        }
    }

    #[test]
    fn references_cannot_make_a_value_grow_without_bounds() {
        // Each level doubles the text, or, where it is empty, the work.
        for last in ["v0=aaaaaaaa", r"v0=%%\"] {
            let mut lines: Vec<String> = (1..15)
                .map(|level| format!("v{level}={}", format!("%(v{})", level - 1).repeat(100)))
                .collect();
            lines.push(last.to_owned());
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let error = variables(&lines).unwrap().get("v14").unwrap_err().to_string();
            assert!(error.contains("do not end, or give too long a text"), "{error}");
        }
    }

    #[test]
    fn booleans_in_bhyves_words() {
        for (value, is) in [
            ("true", Some(true)),
            ("ON", Some(true)),
            ("Yes", Some(true)),
            ("1", Some(true)),
            ("false", Some(false)),
            ("Off", Some(false)),
            ("no", Some(false)),
            ("0", Some(false)),
            ("true\r", None),
            ("2", None),
        ] {
            let tree = variables(&[&format!("x={value}")]).unwrap();
            assert_eq!(tree.boolean("x").ok().flatten(), is, "{value:?}");
        }
        assert_eq!(variables(&[]).unwrap().boolean("x").unwrap(), None);
    }
}
