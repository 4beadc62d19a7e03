//! Rows for a person and for a program, byte for byte as illumos' libofmt prints them.

use std::io::{self, Write};

use super::Listed;
use super::fields::Field;

/// What stands for a value that there is not.
const MISSING: &str = "--";

/// Writes rows in columns, with a heading before the first and again whenever a terminal of `height` lines is full.
pub fn columns(
    out: &mut impl Write,
    functions: &[Listed],
    fields: &[Field],
    height: usize,
) -> io::Result<()> {
    let height = height.max(1);
    let mut lines = 0_usize;
    for function in functions {
        if lines.is_multiple_of(height) {
            row(out, fields, Field::name)?;
            lines += 1;
        }
        row(out, fields, |field| function.field(field).unwrap_or(MISSING))?;
        lines += 1;
    }
    Ok(())
}

/// A value that is too long for its column is printed whole with a blank after it, and the columns after it are narrower
/// until they are in line again. The last has no blanks after it.
fn row<'a>(out: &mut impl Write, fields: &[Field], text: impl Fn(Field) -> &'a str) -> io::Result<()> {
    let Some((last, others)) = fields.split_last() else { return Ok(()) };
    let mut beyond = 0;
    for field in others {
        let (value, width) = (text(*field), field.width());
        // Bytes count, not characters.
        let length = value.len();
        out.write_all(value.as_bytes())?;
        let blanks = match (length + beyond).checked_sub(width) {
            Some(over) => {
                beyond = over + 1;
                1
            }
            None => width - std::mem::take(&mut beyond) - length,
        };
        write!(out, "{:blanks$}", "")?;
    }
    writeln!(out, "{}", text(*last))
}

/// Writes rows for a program: colons between the values, and none of their own without a backslash before it. A single
/// column is as it is.
pub fn parsable(out: &mut impl Write, functions: &[Listed], fields: &[Field]) -> io::Result<()> {
    for function in functions {
        for (at, field) in fields.iter().enumerate() {
            let value = function.field(*field).unwrap_or(MISSING);
            if at > 0 {
                out.write_all(b":")?;
            }
            for byte in value.bytes() {
                if fields.len() > 1 && matches!(byte, b':' | b'\\') {
                    out.write_all(b"\\")?;
                }
                out.write_all(&[byte])?;
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}
