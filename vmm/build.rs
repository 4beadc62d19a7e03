//! What `slotpass --version` says of how it was built.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let profile = env::var("PROFILE").unwrap_or_default();
    let target = env::var("TARGET").unwrap_or_default();
    let build = [commit(), Some(profile), Some(target), compiler()];
    let build: Vec<String> = build.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    println!("cargo::rustc-env=SLOTPASS_BUILD={}", build.join(", "));
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
