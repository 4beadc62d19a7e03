//! Makes C declarations of the interface from `abi.json`, and compiles the C program of the tests with them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::Value;

const TABLE: &str = "abi.json";
const PROGRAM: &str = "tests/c_program/life.c";
const SYSTEM: &str = "tests/c_program/system.h";

fn main() -> Result<(), Box<dyn Error>> {
    for source in [TABLE, PROGRAM, SYSTEM] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let table: Value = serde_json::from_str(&fs::read_to_string(TABLE)?)?;
    fs::write(out.join("ppt_abi.h"), declarations(&table)?)?;
    // Linked into the tests only.
    cc::Build::new()
        .file(PROGRAM)
        .include(&out)
        .std("c11")
        .warnings_into_errors(true)
        .extra_warnings(true)
        .cargo_metadata(false)
        .try_compile("ppt_life")?;
    println!("cargo::rustc-link-arg-tests={}", out.join("libppt_life.a").display());
    Ok(())
}

/// C declarations of all that the table has. The compiler checks them against what the table says of them.
fn declarations(table: &Value) -> Result<String, Box<dyn Error>> {
    let mut c = String::from("#include <stddef.h>\n#include <stdint.h>\n\n");
    let constants = table["constants"].as_object().ok_or("no constants")?;
    for (name, value) in constants {
        match value {
            Value::Number(number) => writeln!(c, "#define {name} {number}")?,
            Value::Object(group) => {
                for (name, value) in group {
                    writeln!(c, "#define {name} {}", value.as_str().ok_or("a constant that is no number")?)?;
                }
            }
            _ => return Err(format!("{name} is no number").into()),
        }
    }
    let mut structs: BTreeMap<&str, &Value> = BTreeMap::new();
    for ioctl in table["ioctls"].as_array().ok_or("no ioctls")? {
        let text = |key: &str| ioctl[key].as_str().ok_or(format!("an ioctl without {key}"));
        let (name, value) = (text("name")?, ioctl["value"].as_i64().ok_or("an ioctl without value")?);
        writeln!(c, "\n#define {name} ({})", text("expr")?)?;
        writeln!(c, "_Static_assert({name} == {value} && {value} == {}, \"{name}\");", text("hex")?)?;
        let Some(of) = ioctl["struct"].as_str() else { continue };
        match structs.insert(of, ioctl) {
            None => structure(&mut c, of, ioctl)?,
            Some(other) if other["fields"] == ioctl["fields"] => {}
            Some(_) => return Err(format!("two layouts of {of}").into()),
        }
    }
    Ok(c)
}

fn structure(c: &mut String, name: &str, ioctl: &Value) -> Result<(), Box<dyn Error>> {
    let fields = ioctl["fields"].as_array().ok_or("an ioctl without fields")?;
    let (mut members, mut checks) = (String::new(), String::new());
    for field in fields {
        let text = |key: &str| field[key].as_str().ok_or(format!("a field of {name} without {key}"));
        let (field_name, (kind, count)) = (text("name")?, c_type(text("type")?));
        writeln!(members, "    {kind} {field_name}{count};")?;
        let number = |key: &str| field[key].as_u64().ok_or(format!("{name}.{field_name} without {key}"));
        writeln!(
            checks,
            "_Static_assert(offsetof(struct {name}, {field_name}) == {}, \"{name}.{field_name}\");\n\
             _Static_assert(sizeof(((struct {name} *)0)->{field_name}) == {}, \"{name}.{field_name}\");",
            number("offset")?,
            number("size")?,
        )?;
    }
    let size = ioctl["struct_size"].as_u64().ok_or("a struct without size")?;
    write!(c, "struct {name} {{\n{members}}};\n{checks}")?;
    writeln!(c, "_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");")?;
    Ok(())
}

/// A type as the table writes it, `name(underlying)` or `name[count]`, as the type of a member and what follows its name.
fn c_type(text: &str) -> (&str, &str) {
    if let Some((_, underlying)) = text.split_once('(') {
        (underlying.trim_end_matches(')'), "")
    } else if let Some(bracket) = text.find('[') {
        text.split_at(bracket)
    } else {
        (text, "")
    }
}
