//! The `log` crate's output: a line on the console for each record of the level that `log=` asks
//! for.

use log::{LevelFilter, Metadata, Record};

use crate::{console, time};

struct ConsoleLog;

impl log::Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (seconds, micros) = (time::uptime() / 1_000_000_000, time::uptime() / 1000 % 1_000_000);
            let (level, target) = (record.level(), record.target());
            console::print(format_args!("[{seconds}.{micros:06}] {level} {target}: {}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

/// The level used when the command line has none: the records that concern an operator.
pub const DEFAULT_LEVEL: LevelFilter = LevelFilter::Warn;

/// Takes all records from here on.
pub fn init() {
    // The only error is a second call.
    let _ = log::set_logger(&ConsoleLog);
    log::set_max_level(DEFAULT_LEVEL);
}
