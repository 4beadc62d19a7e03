//! The list as JSON, laid out as pptadm and illumos' libnvpair print it. Labels alone may differ: pptadm takes their bytes for
//! characters, so that `ü` is two there, `\u00c3\u00bc`; here it is the one that it is.

use std::io::{self, Write};

use super::Listed;

/// Writes an object with an array of objects, each on a line of its own.
pub fn devices(out: &mut impl Write, functions: &[Listed]) -> io::Result<()> {
    out.write_all(b"{\n\t\"devices\": [\n")?;
    for (at, function) in functions.iter().enumerate() {
        out.write_all(if at == 0 { b"\t\t" } else { b",\n\t\t" })?;
        object(out, function)?;
    }
    out.write_all(b"\n\t]\n}\n")
}

fn object(out: &mut impl Write, function: &Listed) -> io::Result<()> {
    let pairs = [
        ("dev", function.dev.as_deref()),
        ("path", function.path.as_deref()),
        ("vendor-id", Some(function.vendor.as_str())),
        ("device-id", Some(function.device.as_str())),
        ("revision-id", Some(function.revision.as_str())),
        ("subsystem-vendor-id", function.subvendor.as_deref()),
        ("subsystem-id", function.subdevice.as_deref()),
        ("label", function.label.as_deref()),
    ];
    let known = pairs.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    for (at, (name, value)) in known.enumerate() {
        write!(out, "{}\"{name}\":", if at == 0 { "{" } else { "," })?;
        string(out, value)?;
    }
    out.write_all(b"}")
}

/// All of it is ASCII: other characters are escaped by their number, and left out where that takes more than 16 bits.
fn string(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    for character in text.chars() {
        match character {
            '"' => out.write_all(b"\\\"")?,
            '\\' => out.write_all(b"\\\\")?,
            '\n' => out.write_all(b"\\n")?,
            '\r' => out.write_all(b"\\r")?,
            '\u{c}' => out.write_all(b"\\f")?,
            '\t' => out.write_all(b"\\t")?,
            '\u{8}' => out.write_all(b"\\b")?,
            ' '..='\u{7f}' => write!(out, "{character}")?,
            '\0'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => {}
        }
    }
    out.write_all(b"\"")
}
