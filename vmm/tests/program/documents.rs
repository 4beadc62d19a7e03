//! What is made from the command line's description, and the program's version.

use std::fs;

use crate::support::Slotpass;

#[test]
fn completions_for_every_shell() {
    for (shell, part) in [
        ("bash", "complete -F _slotpass"),
        ("zsh", "#compdef slotpass"),
        ("fish", "complete -c slotpass"),
        ("elvish", "edit:completion:arg-completer[slotpass]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let ended = Slotpass::new().args(["completions", shell]).end().expect_code(0).expect_silent_stderr();
        ended.expect_stdout(part).expect_stdout("require-reset");
    }
    Slotpass::new().args(["completions", "csh"]).end().expect_refusal(&["csh", "bash"]);
}

#[test]
fn every_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("new/man1");
    let written = Slotpass::new().args(["man"]).args([&pages]).end();
    written.expect_code(0).expect_silent_stderr();
    let help = Slotpass::new().args(["--help"]).end();
    let commands = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        // What a description goes on with is further to the right.
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    assert!(commands.len() > 5, "{help}");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = fs::read_to_string(pages.join(format!("slotpass-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }
    let refused = Slotpass::new().args(["man", "/dev/null/pages"]).end();
    refused.expect_refusal(&["/dev/null/pages: ", "Not a directory"]);
}

#[test]
fn the_version_says_what_was_built_and_how() {
    let ended = Slotpass::new().args(["--version"]).end().expect_code(0);
    let expected = format!("slotpass {} (", env!("CARGO_PKG_VERSION"));
    assert!(ended.stdout.starts_with(&expected), "{ended}");
    ended.expect_stdout("rustc 1.").expect_stdout("x86_64-");
}
