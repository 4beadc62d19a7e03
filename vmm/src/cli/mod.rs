//! The command line.

mod apply;
mod bench;
mod changes;
mod check;
mod ctl;
mod doctor;
mod documents;
mod exit;
mod export;
mod list;
mod release;
mod reserve;
mod run;
mod show;
mod slots;
mod vms;
mod written_last;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::console;
use crate::ppt::PptHost;
use crate::start_times;

/// Name of the program.
const NAME: &str = "slotpass";
/// What was built, and how.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SLOTPASS_BUILD"), ")");

/// Puts host PCI functions into a virtual machine's slots.
///
/// Without a command: boots a small guest of its own with a simulated function at 0:8:0, and shows what it saw and
/// measured.
#[derive(Debug, Parser)]
#[command(name = NAME, version = VERSION, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Says more: what is done, with which device; given twice, what a developer wants to know
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Arguments>),
    Show(show::Arguments),
    List(list::Arguments),
    Doctor(doctor::Arguments),
    Bench(Box<bench::Arguments>),
    Reserve(reserve::Arguments),
    Release(release::Arguments),
    Apply(apply::Arguments),
    #[command(flatten)]
    Vms(vms::Command),
    Ctl(ctl::Arguments),
    Check(check::Arguments),
    Export(export::Arguments),
    Completions(documents::CompletionsArguments),
    Man(documents::ManArguments),
}

/// Runs the program with these arguments, of which the first is its name. Functions named `/dev/pptN` are those of `ppt`.
pub fn main(arguments: impl Iterator<Item = OsString>, ppt: Option<Arc<dyn PptHost>>) -> ExitCode {
    start_times::program_begins();
    let arguments: Vec<OsString> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let mut words =
                arguments.iter().skip(1).filter(|word| !word.as_encoded_bytes().starts_with(b"-"));
            if words.next().is_some_and(|command| command == list::NAME)
                && let Some(refused) = list::refuse(&error)
            {
                return refused;
            }
            let _ = error.print();
            // Help and version are no errors; the others are this program's, and all of those are 1.
            return if error.use_stderr() { exit::FAILED } else { ExitCode::SUCCESS };
        }
    };
    // A message on a raw terminal cannot be read, and a shell on one cannot be used.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        console::restore();
        print(panic);
    }));
    match cli.command {
        Some(Command::Run(arguments)) => run::run(*arguments, cli.verbose, ppt),
        Some(Command::Ctl(arguments)) => ctl::ctl(arguments),
        Some(Command::Doctor(arguments)) => doctor::doctor(arguments),
        Some(Command::Bench(arguments)) => bench::bench(*arguments, cli.verbose),
        Some(Command::Show(arguments)) => show::show(&arguments),
        Some(Command::List(arguments)) => list::list(&arguments),
        Some(Command::Reserve(arguments)) => reserve::reserve(arguments),
        Some(Command::Release(arguments)) => release::release(arguments),
        Some(Command::Apply(arguments)) => apply::apply(&arguments),
        Some(Command::Check(arguments)) => check::check(arguments),
        Some(Command::Export(arguments)) => export::export(arguments),
        Some(Command::Completions(arguments)) => documents::completions(&arguments, Cli::command()),
        Some(Command::Man(arguments)) => documents::man(&arguments, Cli::command()),
        Some(Command::Vms(command)) => vms::vms(command, cli.verbose, ppt),
        None => run::demo(cli.verbose),
    }
}
