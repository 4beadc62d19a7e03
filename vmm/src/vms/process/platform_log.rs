//! The log of a VM's process: all of it goes to a file, and what a user is to see also to who starts the VM.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record, error};

use crate::vms::rotating_file::{self, RotatingFile};
use crate::vms::start_pipe::StartPipe;

struct PlatformLog {
    file: Logger,
    start: Arc<StartPipe>,
}

impl Log for PlatformLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.file.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.file.log(record);
        self.start.note(record);
    }

    fn flush(&self) {
        self.file.flush();
    }
}

/// Everything that this process notes, panics included, goes there from now on.
pub fn begin(path: &Path, verbose: u8, start: Arc<StartPipe>) -> io::Result<()> {
    let file = RotatingFile::open(path, rotating_file::LIMIT)?;
    let level = if verbose > 0 { LevelFilter::Debug } else { LevelFilter::Info };
    let mut builder = Builder::new();
    builder.filter_level(level).write_style(WriteStyle::Never).target(Target::Pipe(Box::new(file)));
    builder.format(|out, record| {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let level = record.level().as_str().to_lowercase();
        writeln!(out, "{time} {level}: {}", record.args())
    });
    // A process runs one VM; a log that is there already has it too.
    if log::set_boxed_logger(Box::new(PlatformLog { file: builder.build(), start })).is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| error!("{panic}")));
    Ok(())
}
