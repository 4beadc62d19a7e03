//! `cargo clippy` does not come to the sources that build.rs compiles; this does. Skipped, loudly, in a toolchain
//! without clippy. (`cargo fmt` does come to them: see the end of src/lib.rs.)

// Clippy exempts test functions by itself, but not what they call.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn clippy() -> Option<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().unwrap().stdout;
    let driver = Path::new(std::str::from_utf8(&sysroot).unwrap().trim()).join("bin/clippy-driver");
    if !driver.exists() {
        // Not by eprintln, which the test harness keeps to itself.
        let text = format!("SKIPPED: {} is missing (rustup component add clippy)\n", driver.display());
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    Some(driver)
}

#[test]
fn clippy_has_no_objections() {
    let Some(clippy) = clippy() else { return };
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clippy-{}", std::process::id()));
    fs::create_dir_all(&out).unwrap();
    for (source, kind) in [
        ("runtime/lib.rs", "rlib"),
        ("programs/bench/main.rs", "bin"),
        ("programs/demo/main.rs", "bin"),
        ("programs/devices/main.rs", "bin"),
        ("programs/exit/main.rs", "bin"),
    ] {
        let name = if kind == "rlib" { "runtime" } else { "program" };
        let mut command = Command::new(&clippy);
        command.args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu", "-C", "panic=abort"]);
        command
            .args(["--emit", "metadata", "--crate-name", name, "--crate-type", kind, "--out-dir"])
            .arg(&out);
        if kind == "bin" {
            command.arg("--extern").arg(format!("runtime={}", out.join("libruntime.rmeta").display()));
        }
        command.args(["-D", "warnings", "-D", "clippy::all", "-D", "clippy::undocumented_unsafe_blocks"]);
        let output = command.arg(package.join(source)).env("CLIPPY_CONF_DIR", package).output().unwrap();
        assert!(output.status.success(), "{source}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_dir_all(out).unwrap();
}
