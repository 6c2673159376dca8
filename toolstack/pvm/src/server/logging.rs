//! The daemon's log, on its standard error: lines for people, for journald, or for programs.

use std::env;
use std::fmt::Write as _;
use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::settings::LogFormat;
use crate::plain::{is_command, plain_json};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Time, level, module, text, values.
    Text,
    /// The level in the form of sd-daemon(3); journald has the time.
    Journal,
    /// An object.
    Json,
}

struct Logger {
    style: Style,
    /// Lines that could not be written since the last that could. It is locked during a write, so
    /// that no other thread takes the place that was seen.
    lost: Mutex<u64>,
}

/// Logs to standard error from here on.
pub fn init(level: LevelFilter, format: LogFormat) {
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text if env::var_os("JOURNAL_STREAM").is_some() => Style::Journal,
        LogFormat::Text => Style::Text,
    };
    if log::set_boxed_logger(Box::new(Logger { style, lost: Mutex::new(0) })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.put(&stderr(), line(self.style, record, SystemTime::now()));
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Writes a line, unless there is no place for it: no thread waits for whoever reads the log, and
    /// a full disk is the log's loss alone. The next line says how many were lost.
    fn put(&self, mut output: impl AsFd + io::Write, mut line: String) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if *lost > 0 && self.style == Style::Json {
            line.truncate(line.len() - 1);
            let _ = write!(line, ",\"lost\":{lost}}}");
        } else if *lost > 0 {
            let _ = write!(line, " ({lost} lines were lost before)");
        }
        line.push('\n');
        // One write, so that lines of threads do not mix.
        let is_written = has_place(&output) && output.write_all(line.as_bytes()).is_ok();
        *lost = if is_written { 0 } else { *lost + 1 };
    }
}

/// True if a write does not wait. A pipe with place for anything has it for a page (pipe(7)).
fn has_place(output: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(output, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn line(style: Style, record: &Record<'_>, now: SystemTime) -> String {
    let time = humantime::format_rfc3339_micros(now);
    let (level, module) = (record.level(), record.target());
    if style == Style::Json {
        let mut fields = Fields::default();
        fields.add("time", time.to_string());
        fields.add("level", level.as_str().to_ascii_lowercase());
        fields.add("module", module);
        fields.add("message", record.args().to_string());
        // Our visitor never fails.
        let _ = record.key_values().visit(&mut fields);
        return plain_json(&serde_json::Value::Object(fields.0).to_string());
    }
    let mut line = match style {
        Style::Journal => format!("<{}>{module}: ", priority(level)),
        _ => format!("{time} {level:5} {module}: "),
    };
    // A record is one line, even if a guest's words in it hold line feeds.
    let text = record.args().to_string();
    line.extend(text.chars().map(|c| if is_command(c) { ' ' } else { c }));
    let _ = record.key_values().visit(&mut Pairs(&mut line));
    line
}

/// The number of a level in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Fields {
    fn add(&mut self, key: &str, value: impl Into<serde_json::Value>) {
        self.0.insert(key.to_owned(), value.into());
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        match (value.to_i64(), value.to_u64(), value.to_bool()) {
            (Some(number), _, _) => self.add(key.as_str(), number),
            (_, Some(number), _) => self.add(key.as_str(), number),
            (_, _, Some(truth)) => self.add(key.as_str(), truth),
            _ => self.add(key.as_str(), value.to_string()),
        }
        Ok(())
    }
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"');
        let written = if plain { write!(self.0, " {key}={value}") } else { write!(self.0, " {key}={value:?}") };
        written.map_err(kv::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::time::{Duration, UNIX_EPOCH};

    fn render(style: Style) -> String {
        let values = [("id", Value::from(7)), ("name", Value::from("a b")), ("to", Value::from("x"))];
        let values: &[(&str, Value)] = &values;
        let mut record = Record::builder();
        record.level(Level::Warn).target("pvm::engine").key_values(&values);
        line(
            style,
            &record.args(format_args!("a fork\nfailed")).build(),
            UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042),
        )
    }

    #[test]
    fn a_log_that_nobody_reads_holds_no_thread() {
        let (mut reader, writer) = io::pipe().unwrap();
        let logger = Logger { style: Style::Text, lost: Mutex::new(0) };
        let mut written = 0;
        while *logger.lost.lock().unwrap() == 0 {
            logger.put(&writer, "a line".to_owned());
            written += 1;
        }
        logger.put(&writer, "another".to_owned());
        let mut some = vec![0; 3 * 4096];
        reader.read_exact(&mut some).unwrap();
        logger.put(&writer, "at last".to_owned());
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("a line\nat last (2 lines were lost before)\n"), "{written}");
        assert_eq!(*logger.lost.lock().unwrap(), 0);
        // A file on a full disk.
        logger.put(&std::fs::File::options().write(true).open("/dev/full").unwrap(), "x".to_owned());
        assert_eq!(*logger.lost.lock().unwrap(), 1);
    }

    #[test]
    fn a_line_for_people() {
        assert_eq!(
            render(Style::Text),
            "2023-11-14T22:13:20.000042Z WARN  pvm::engine: a fork failed id=7 name=\"a b\" to=x"
        );
    }

    #[test]
    fn a_line_for_journald() {
        assert_eq!(render(Style::Journal), "<4>pvm::engine: a fork failed id=7 name=\"a b\" to=x");
    }

    #[test]
    fn a_line_for_programs() {
        let object: serde_json::Value = serde_json::from_str(&render(Style::Json)).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "time": "2023-11-14T22:13:20.000042Z", "level": "warn", "module": "pvm::engine",
                "message": "a fork\nfailed", "id": 7, "name": "a b", "to": "x"
            })
        );
    }
}
