//! Compiles the guest programs with the compiler that cargo uses, for x86-64 without an operating system.
//!
//! Neither a nested cargo nor a bare-metal target is needed: the precompiled `core` of x86_64-unknown-linux-gnu
//! serves, since the programs run at CPL3, where SSE is available. The linker is the one that comes with the compiler.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAMS: [&str; 6] = ["bench", "demo", "devices", "exit", "hostile", "vectors"];

struct Failed(String);

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(reason)) => {
            eprintln!("\nguest: {reason}\n");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<OsString, Failed> {
    env::var_os(name).ok_or_else(|| Failed(format!("{name} is not set; build with cargo")))
}

fn build() -> Result<(), Failed> {
    let sources = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let rustc = variable("RUSTC")?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=runtime");
    println!("cargo::rerun-if-changed=programs");

    let linker = linker(&rustc)?;
    let runtime = out.join("libruntime.rlib");
    compile(&rustc, &sources.join("runtime/lib.rs"), &runtime, |rustc| {
        rustc.args(["--crate-name", "runtime", "--crate-type", "rlib"]);
    })?;
    let mut script = OsString::from("link-arg=-T");
    script.push(sources.join("runtime/image.ld"));
    for program in PROGRAMS {
        let source = sources.join("programs").join(program).join("main.rs");
        compile(&rustc, &source, &out.join(format!("{program}.elf")), |rustc| {
            let mut external = OsString::from("runtime=");
            external.push(&runtime);
            rustc.args(["--crate-name", program, "--crate-type", "bin"]).arg("--extern").arg(external);
            rustc.arg("-C").arg(&linker.program).args(["-C", linker.flavor]).arg("-C").arg(&script);
            // No page alignment in the file; no build id, so that equal sources make equal images.
            for argument in ["-n", "-static", "--build-id=none", "-z", "noexecstack"] {
                rustc.args(["-C", &format!("link-arg={argument}")]);
            }
        })?;
    }
    Ok(())
}

fn compile(
    rustc: &OsStr,
    source: &Path,
    output: &Path,
    more: impl FnOnce(&mut Command),
) -> Result<(), Failed> {
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--target", TARGET, "-D", "warnings", "-D", "unsafe_op_in_unsafe_fn"]);
    for option in [
        "opt-level=2",
        "panic=abort",
        "codegen-units=1",
        "relocation-model=static",
        "code-model=small",
        "no-redzone=yes",
        "strip=debuginfo",
        "default-linker-libraries=no",
    ] {
        command.args(["-C", option]);
    }
    // Panics name their place; it should not depend on where the package lies.
    let mut remap = OsString::from("--remap-path-prefix=");
    remap.push(variable("CARGO_MANIFEST_DIR")?);
    remap.push("=guest");
    command.arg(remap).arg(source).arg("-o").arg(output);
    more(&mut command);
    // The caller's flags are for the host: a linker script or a sanitizer in them would break the guest.
    let run = command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").output();
    let output = run.map_err(|error| Failed(format!("{}: {error}", rustc.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    let advice = if messages.contains("can't find crate for `core`") {
        format!("\nguests are built from the library of {TARGET}: rustup target add {TARGET}")
    } else {
        String::new()
    };
    Err(Failed(format!("{} does not compile:\n{messages}{advice}", source.display())))
}

struct Linker {
    /// `linker=PROGRAM`
    program: OsString,
    flavor: &'static str,
}

/// The linker of the toolchain; where a distribution has left it out, the system's.
fn linker(rustc: &OsStr) -> Result<Linker, Failed> {
    let print = |what: &str| {
        let output = Command::new(rustc).args(["--print", what]).output();
        let output = output.map_err(|error| Failed(format!("{}: {error}", rustc.display())))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let host = print("host-tuple")?;
    let sysroot = PathBuf::from(print("sysroot")?.trim());
    let own = sysroot.join("lib/rustlib").join(host.trim()).join("bin/rust-lld");
    let found = |name: &str| {
        let folders = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    let (path, flavor) = if own.is_file() {
        (own, "linker-flavor=ld.lld")
    } else if let Some(path) = found("ld.lld") {
        (path, "linker-flavor=ld.lld")
    } else if let Some(path) = found("ld") {
        (path, "linker-flavor=ld")
    } else {
        return Err(Failed(format!(
            "no linker: neither {} nor ld.lld nor ld; install lld or binutils, or a toolchain from rustup",
            own.display()
        )));
    };
    let mut program = OsString::from("linker=");
    program.push(path);
    Ok(Linker { program, flavor })
}
