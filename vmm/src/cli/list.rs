//! `slotpass list`, in pptadm's words.

mod states;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args};
use passthru::host::vfio::sysfs::{self, SysfsFunction};
use ppt_files::file_text::ReadError;
use ppt_files::ppt_matches::{self, PptMatches};

use super::exit;
use crate::console::window;
use crate::host::list::fields::{Chosen, Field, FieldsError};
use crate::host::list::tree::Tree;
use crate::host::list::{Listing, Remark, Selection, json, of_aliases, table, tree};
use crate::host::physical_path;
use crate::host::reserve::Host;
use crate::host::reserve::meaning::AliasFile;
use states::States;

/// Name of the command.
pub const NAME: &str = "list";
/// Lines between headings where stdout is no terminal.
const HEIGHT: usize = 24;
const USAGE: &str = "Usage:
slotpass list [ -j ]
slotpass list [-ap] [-o fields]
";

/// Lists the functions of this host that are bound to a VFIO driver, or could be
///
/// The interface is that of pptadm(8) of illumos. What it keeps to itself, such as why a list is empty, is said on stderr.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct Arguments {
    /// Those too that /etc/ppt_matches matches and no VFIO driver holds
    #[arg(short)]
    all: bool,
    /// As JSON
    #[arg(short, long)]
    json: bool,
    /// All functions of the host as they are connected, with their groups and drivers, and which go to a guest together;
    /// as a text or, with -j, as JSON
    #[arg(long)]
    tree: bool,
    /// Which columns, with commas between them: dev, vendor, device, subvendor, subdevice, rev, path, label; or all; and state
    #[arg(short = 'o', value_name = "FIELD,…|all", allow_hyphen_values = true)]
    fields: Option<OsString>,
    /// For programs: values with colons between them, and no heading; needs -o
    #[arg(short)]
    parsable: bool,
    /// With -a: matches what this file says, not /system/boot/etc/ppt_matches or /etc/ppt_matches
    #[arg(long, value_name = "FILE")]
    matches: Option<PathBuf>,
    /// Prints the usage
    #[arg(short = 'h')]
    usage: bool,
    /// Prints help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[arg(hide = true)]
    surplus: Vec<OsString>,
}

#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("{0}")]
    Usage(&'static str),
    #[error(transparent)]
    Fields(#[from] FieldsError),
    #[error(transparent)]
    Matches(#[from] ReadError),
    #[error("{}: {source}", sysfs::DEVICES)]
    Devices { source: io::Error },
    #[error("stdout: {0}")]
    Output(io::Error),
}

/// How the list is printed.
enum Form {
    Columns(Vec<Field>),
    Parsable(Vec<Field>),
    Json,
}

impl Form {
    fn has_states(&self) -> bool {
        match self {
            Form::Columns(fields) | Form::Parsable(fields) => fields.contains(&Field::State),
            Form::Json => false,
        }
    }
}

/// What VMs and others make of functions. Without that the list is what it is.
fn states() -> Option<States> {
    match States::read() {
        Ok(states) => Some(states),
        Err(error) => {
            say(&format_args!("no states: {error}"));
            None
        }
    }
}

/// Prints the list on stdout.
pub fn list(arguments: &Arguments) -> ExitCode {
    if arguments.usage {
        let _ = io::stdout().write_all(USAGE.as_bytes());
        return ExitCode::SUCCESS;
    }
    match listed(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            if matches!(error, ListError::Usage(_)) {
                let _ = io::stderr().write_all(USAGE.as_bytes());
            }
            exit::FAILED
        }
    }
}

/// Refuses arguments that are none of this command's, as getopt(3C) and pptadm do. Nothing if they are something else.
pub fn refuse(error: &clap::Error) -> Option<ExitCode> {
    let option = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let what = match error.kind() {
        ErrorKind::UnknownArgument => "illegal option",
        ErrorKind::InvalidValue => "option requires an argument",
        ErrorKind::TooManyValues => "option takes no argument",
        _ => return None,
    };
    let option = option(ContextKind::InvalidArg).split(' ').next().unwrap_or_default();
    let _ = writeln!(io::stderr(), "slotpass {NAME}: {what} -- {}", option.trim_start_matches('-'));
    say(&ListError::Usage("unrecognized option"));
    let _ = io::stderr().write_all(USAGE.as_bytes());
    Some(exit::FAILED)
}

fn say(what: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "slotpass: {what}");
}

fn listed(arguments: &Arguments) -> Result<(), ListError> {
    let form = form(arguments)?;
    if arguments.tree {
        return tree(&form);
    }
    let selection = match selection(arguments) {
        Ok(selection) => selection,
        // As pptadm, which lists nothing then and succeeds; but not without a word.
        Err(error) if arguments.matches.is_none() => {
            say(&format_args!("the list is empty: {error}"));
            return print(&form, &Listing::default());
        }
        Err(error) => return Err(error.into()),
    };
    let states = form.has_states().then(states).flatten();
    let state_of = |function: &SysfsFunction| states.as_ref()?.of(function);
    let listing = Listing::of(Path::new(sysfs::DEVICES), &selection, physical_path::of, state_of)
        .map_err(|source| ListError::Devices { source })?;
    print(&form, &listing)?;
    listing.remarks.iter().for_each(say);
    if listing.functions.is_empty() {
        say_reserved();
    }
    states.iter().filter_map(States::remark).for_each(|remark| say(&remark));
    Ok(())
}

/// What should be bound, and which lines have no effect.
fn say_reserved() {
    let host = Host::default();
    for path in [&host.at_boot, &host.until_off] {
        match AliasFile::read(path) {
            Ok(file) => of_aliases(&file).iter().for_each(say),
            Err(error) => say(&error),
        }
    }
}

fn form(arguments: &Arguments) -> Result<Form, ListError> {
    let Arguments { all, json, tree, fields, parsable, matches, surplus, .. } = arguments;
    if !surplus.is_empty() {
        return Err(ListError::Usage("unused arguments"));
    }
    if *json && (*parsable || fields.is_some()) {
        return Err(ListError::Usage("-j option cannot be used with -p or -o options"));
    }
    if *parsable && fields.is_none() {
        return Err(ListError::Usage("-o must be provided when using -p option"));
    }
    if *tree && (*all || *parsable || fields.is_some() || matches.is_some()) {
        return Err(ListError::Usage("--tree shows all functions, as a text or with -j"));
    }
    if matches.is_some() && !all {
        return Err(ListError::Usage("--matches is of use with -a only"));
    }
    if *json {
        return Ok(Form::Json);
    }
    let Some(fields) = fields else { return Ok(Form::Columns(Field::DEFAULT.to_vec())) };
    let chosen = Chosen::parse(&fields.to_string_lossy(), *parsable)?;
    chosen.warning().iter().for_each(say);
    Ok(if *parsable { Form::Parsable(chosen.fields) } else { Form::Columns(chosen.fields) })
}

fn selection(arguments: &Arguments) -> Result<Selection, ReadError> {
    if !arguments.all {
        return Ok(Selection::Bound);
    }
    if let Some(path) = &arguments.matches {
        let matches = Some((path.clone(), PptMatches::read(path)?));
        return Ok(Selection::All { matches, lookup: vec![path.clone()] });
    }
    let lookup = ppt_matches::LOOKUP.map(PathBuf::from).to_vec();
    Ok(Selection::All { matches: PptMatches::find(&lookup)?, lookup })
}

fn tree(form: &Form) -> Result<(), ListError> {
    let devices = Path::new(sysfs::DEVICES);
    let states = states();
    let state_of = |function: &SysfsFunction| states.as_ref()?.of(function);
    let tree =
        Tree::of(devices, physical_path::of, state_of).map_err(|source| ListError::Devices { source })?;
    to_stdout(|out| match form {
        Form::Json => tree::json(out, &tree),
        _ => tree::text(out, &tree),
    })?;
    if tree.roots.is_empty() {
        say(&Remark::NoFunctions { devices: devices.to_owned() });
    }
    states.iter().filter_map(States::remark).for_each(|remark| say(&remark));
    Ok(())
}

fn print(form: &Form, listing: &Listing) -> Result<(), ListError> {
    let height = window::height(io::stdout().as_fd()).unwrap_or(HEIGHT);
    let functions = &listing.functions;
    to_stdout(|out| match form {
        Form::Columns(fields) => table::columns(out, functions, fields, height),
        Form::Parsable(fields) => table::parsable(out, functions, fields),
        Form::Json => json::devices(out, functions),
    })
}

fn to_stdout(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> Result<(), ListError> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(ListError::Output),
    }
}
