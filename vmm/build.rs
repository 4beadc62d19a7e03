//! What `slotpass --version` says of how it was built, and the names of PCI ids.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use pci_ids::{Classes, Vendors};

fn main() -> io::Result<()> {
    let profile = env::var("PROFILE").unwrap_or_default();
    let target = env::var("TARGET").unwrap_or_default();
    let build = [commit(), Some(profile), Some(target), compiler()];
    let build: Vec<String> = build.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    println!("cargo::rustc-env=SLOTPASS_BUILD={}", build.join(", "));
    write_names(&PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()))
}

/// For `src/show/names.rs`: a name each line, behind its number in hexadecimal, sorted by that. As the crate has them, each is a
/// pointer and a length in memory that the loader writes to before the program starts: 2.4 MiB that every run would have resident.
fn write_names(directory: &Path) -> io::Result<()> {
    let vendors = Vendors::iter().map(|vendor| format!("{:04x} {}", vendor.id(), vendor.name()));
    let devices = Vendors::iter().flat_map(|vendor| {
        vendor.devices().map(|device| format!("{:04x}{:04x} {}", vendor.id(), device.id(), device.name()))
    });
    let subclasses =
        || Classes::iter().flat_map(|class| class.subclasses().map(move |sub| (class.id(), sub)));
    let classes = subclasses().map(|(base, sub)| format!("{base:02x}{:02x} {}", sub.id(), sub.name()));
    let interfaces = subclasses().flat_map(|(base, sub)| {
        let number = move |interface: u8| format!("{base:02x}{:02x}{interface:02x}", sub.id());
        sub.prog_ifs().map(move |interface| format!("{} {}", number(interface.id()), interface.name()))
    });
    write_sorted(&directory.join("vendors"), vendors.collect())?;
    write_sorted(&directory.join("devices"), devices.collect())?;
    write_sorted(&directory.join("classes"), classes.collect())?;
    write_sorted(&directory.join("interfaces"), interfaces.collect())
}

fn write_sorted(path: &Path, mut lines: Vec<String>) -> io::Result<()> {
    lines.sort_unstable();
    fs::write(path, lines.join("\n"))
}

/// The commit that is built, with a + where files differ from it. Whoever builds from an archive can say it in
/// `SLOTPASS_COMMIT`.
fn commit() -> Option<String> {
    println!("cargo::rerun-if-env-changed=SLOTPASS_COMMIT");
    if let Ok(commit) = env::var("SLOTPASS_COMMIT") {
        return Some(commit.chars().filter(char::is_ascii_alphanumeric).collect());
    }
    // A git repository around an archive is not this program's.
    if output("git", &["rev-parse", "--show-prefix"])? != "vmm/" {
        return None;
    }
    // HEAD changes with the branch, the log of HEAD with every commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = output("git", &["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // A change of a file is seen when something else builds this anew; it is told as of that time.
    println!("cargo::rerun-if-changed=src");
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

fn compiler() -> Option<String> {
    let version = output(&env::var("RUSTC").ok()?, &["--version"])?;
    Some(version.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
