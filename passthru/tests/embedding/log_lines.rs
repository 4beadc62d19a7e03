//! What the library logs while the tests run.

use std::sync::{Mutex, Once};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Lines(Mutex<Vec<(Level, String)>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// From now on lines are kept, of all tests that run.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
}

/// How many lines of a level were kept that have each of these texts.
pub fn count(level: Level, texts: &[&str]) -> usize {
    let lines = LINES.0.lock().unwrap();
    lines.iter().filter(|(its, line)| *its == level && texts.iter().all(|text| line.contains(text))).count()
}
