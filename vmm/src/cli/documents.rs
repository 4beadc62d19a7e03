//! `slotpass completions` and `slotpass man`: what is made from the command line's description.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit;

/// Prints what a shell needs to complete the arguments of slotpass
///
/// For bash: slotpass completions bash >/etc/bash_completion.d/slotpass. The Debian package brings it.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// For which shell
    shell: Shell,
}

/// Writes the man pages of slotpass and its commands into a directory
///
/// As slotpass.1, slotpass-run.1 and so on. The Debian package brings them.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Where; it is made if it is not there
    directory: PathBuf,
}

/// Prints them on stdout.
pub fn completions(arguments: &CompletionsArguments, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, super::NAME, &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "slotpass: stdout: {error}");
            exit::FAILED
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes them.
pub fn man(arguments: &ManArguments, command: Command) -> ExitCode {
    let directory = &arguments.directory;
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "slotpass: {}: {error}", directory.display());
            exit::FAILED
        }
    }
}
