//! The command `pvm`: asks the daemon, starts guests with `xl`, and shows the results.

mod client;
mod doctor;
mod error;
mod generate;
mod guest;
mod interrupt;
mod library;
mod lines;
mod logs;
mod options;
mod progress;
mod render;
mod run;
mod signal;
mod xl;

pub use options::Options;

use std::ffi::OsString;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use clap::error::ErrorKind as ClapError;
use serde::Serialize;
use serde_json::{Value, json};

use client::{Answer, Client, understand};
use error::Error;
use lines::Lines;
use logs::put;
use options::{Command, Generate, Ipc, Pool};
use progress::Progress;
use render::Surroundings;

use crate::engine::{Ended, PvmInfo, Target};
use crate::plain::{plain, plain_json};
use crate::protocol::Request;

/// Carries out `pvm`.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() && asks_for_json(std::env::args_os().skip(1)) => {
            say(&plain_json(&usage_json(&error).to_string()));
            return ExitCode::from(USAGE);
        }
        // Also the texts of --help and --version.
        Err(error) => error.exit(),
    };
    let json = options.json;
    match execute(options) {
        Ok(code) => ExitCode::from(code),
        // The reader of our output needs no more, like `head`.
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            report(json, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The exit code for a command line that cannot be understood.
const USAGE: u8 = 2;

/// True if these arguments ask for JSON, whatever else they are.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    args.take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// The error for a command line that cannot be understood: its first line, without the hints.
fn usage_json(error: &clap::Error) -> Value {
    let text = error.render().to_string();
    let line = text.lines().next().map(|line| line.trim_start_matches("error: ")).unwrap_or_default();
    let message = match error.kind() {
        // The text is the help.
        ClapError::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
        _ => line,
    };
    json!({ "error": { "kind": "usage", "message": format!("{message}: see `pvm help`") } })
}

fn report(json: bool, error: &Error) {
    if json {
        say(&plain_json(&error.to_json().to_string()));
    } else {
        say(&format!("pvm: {}", plain(&error.to_string())));
    }
}

/// Prints a line on standard error, if that takes it.
fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

fn execute(options: Options) -> Result<u8, Error> {
    let out = &mut stdout().lock();
    let Options { json, socket, command } = options;
    let connect = || Client::connect(&socket);
    match command {
        Command::Run(options) => return run::run(&socket, json, &options, out),
        Command::List { tree, all } => {
            let value = connect()?.ask_value(Request::List { all })?;
            show(out, json, value, |mut pvms: Vec<PvmInfo>| {
                pvms.sort_by_key(|pvm| (pvm.since_us, pvm.id));
                if tree { render::tree(&pvms, surroundings()) } else { render::list(&pvms, surroundings()) }
            })?;
        }
        Command::Inspect { pvms } => {
            let mut client = connect()?;
            return each(json, pvms, |pvm| {
                let value = client.ask_value(Request::Inspect { pvm: pvm.clone() })?;
                show(out, json, value, |info: PvmInfo| render::inspect(&info, surroundings()))
            });
        }
        Command::Logs { follow, tail, pvm } => logs::show(connect(), &pvm, follow, tail, Lines::new(out, json))?,
        Command::Console { pvm } => {
            let domid = connect()?.inspect(&pvm)?.domid.to_string();
            // `exec` returns only on failure.
            return Err(xl::not_there(xl::command().args(["console", &domid]).exec()));
        }
        Command::Wait { timeout, pvm } => {
            let ended = wait(connect()?, &pvm, timeout)?;
            let text = format!("{}: {}\n", ended.id, ended.status);
            show(out, json, json!(ended), |_: Value| text)?;
            return Ok(ended.exit_code);
        }
        Command::Kill { signal, family, pvms } => {
            let mut client = connect()?;
            return each(json, pvms, |pvm| {
                let _progress = Progress::new(format!("sending {signal} to {pvm}"));
                let request = Request::Kill { pvm: pvm.clone(), signal: signal.0, family };
                let value = client.ask_value(request)?;
                if json { print_json(out, &value) } else { Ok(()) }
            });
        }
        Command::Stop { timeout, pvms } => {
            return each(json, pvms, |pvm| {
                // The id is that of the name at the time of the request to stop.
                let mut client = connect()?;
                let target = Target::Id(client.inspect(pvm)?.id);
                client.ask_value(Request::Stop { pvm: target.clone() })?;
                let _progress = Progress::new(format!("waiting for {pvm} to end"));
                match wait(client, &target, Some(timeout)) {
                    Err(Error::TimedOut(what)) => {
                        Err(Error::TimedOut(format!("{what}: `pvm kill {pvm}` does not ask")))
                    }
                    Ok(ended) if json => print_json(out, &ended),
                    other => other.map(drop),
                }
            });
        }
        Command::Fork { count, pvm } => {
            let _progress = Progress::new(format!("waiting for {pvm} to come to a safe point"));
            let value = connect()?.ask_value(Request::Fork { pvm, count, application: Vec::new() })?;
            show(out, json, value, |ids: Vec<u32>| ids.iter().map(|id| format!("{id}\n")).collect())?;
        }
        Command::Stats => {
            let value = connect()?.ask_value(Request::Stats)?;
            show(out, json, value, |stats| render::stats(&stats))?;
        }
        Command::Events { follow } => {
            let mut client = connect()?;
            client.send(Request::Events { follow })?;
            while let Some(Answer::Event(event)) = client.next(None)? {
                if json {
                    print_json(out, &event)?;
                } else {
                    put(out, (render::event(&event) + "\n").as_bytes())?;
                }
            }
        }
        Command::Doctor(options) => return doctor::run(&socket, json, &options, out),
        Command::Pool { command: Pool::List } => {
            let value = connect()?.ask_value(Request::Pool)?;
            show(out, json, value, |pool: Vec<_>| render::pool(&pool))?;
        }
        Command::Ipc { command: Ipc::List { family } } => {
            let value = connect()?.ask_value(Request::Objects { family })?;
            show(out, json, value, |objects: Vec<_>| render::objects(&objects))?;
        }
        Command::Ipc { command: Ipc::Rm { pvm, name } } => {
            let value = connect()?.ask_value(Request::RemoveObject { pvm, name })?;
            if json {
                print_json(out, &value)?;
            }
        }
        Command::Lib(options) => return library::lib(&socket, json, options, out),
        Command::Key(options) => return library::key(json, options, out),
        Command::Generate { what: Generate::Man { directory } } => generate::man(&directory)?,
        Command::Generate { what: Generate::Completions { directory, shells } } => {
            generate::completions(&directory, &shells)?;
        }
    }
    Ok(0)
}

/// Waits for the end of a pVM.
fn wait(mut client: Client, pvm: &Target, timeout: Option<Duration>) -> Result<Ended, Error> {
    client.send(Request::Wait { pvm: pvm.clone() })?;
    // A time beyond all clocks is none.
    match client.next(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))? {
        Some(Answer::Final(value)) => understand(value),
        Some(Answer::Event(_)) => Err(Error::NotUnderstood("an event that was not asked for".to_owned())),
        None => {
            let timeout = humantime::format_duration(timeout.unwrap_or_default());
            Err(Error::TimedOut(format!("{pvm} has not ended within {timeout}")))
        }
    }
}

/// Does the same to each pVM. A failure does not keep it from the others. The exit code is that of
/// the first failure.
fn each(json: bool, pvms: Vec<Target>, mut act: impl FnMut(&Target) -> Result<(), Error>) -> Result<u8, Error> {
    let mut code = 0;
    for pvm in pvms {
        match act(&pvm) {
            Ok(()) => {}
            Err(error @ Error::Output(_)) => return Err(error),
            Err(error) => {
                report(json, &error);
                code = if code == 0 { error.exit_code() } else { code };
            }
        }
    }
    Ok(code)
}

/// Prints an answer, as JSON or as text.
fn show<T: serde::de::DeserializeOwned>(
    out: &mut impl Write,
    json: bool,
    value: Value,
    render: impl FnOnce(T) -> String,
) -> Result<(), Error> {
    if json { print_json(out, &value) } else { put(out, render(understand(value)?).as_bytes()) }
}

/// Prints a value as one line of JSON.
fn print_json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(value).map_err(|error| Error::Output(error.into()))?;
    put(out, (plain_json(&line) + "\n").as_bytes())
}

fn surroundings() -> Surroundings {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The first of these variables that is set decides (locale(7)).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let locale = locale.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    Surroundings { now_us: now.as_micros() as u64, unicode: locale.contains("utf-8") || locale.contains("utf8") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_is_not_understood_is_json_too() {
        let asks = |words: &str| asks_for_json(words.split(' ').map(OsString::from));
        assert!(asks("--json nosuchcommand") && asks("kill --json"));
        assert!(!asks("run hello -- --json") && !asks("--jsonx"));
        for (words, message) in [
            ("pvm --json nosuchcommand", "unrecognized subcommand 'nosuchcommand': see `pvm help`"),
            ("pvm --json", "'pvm' requires a subcommand but one was not provided: see `pvm help`"),
            ("pvm --json pool", "a command is missing: see `pvm help`"),
            ("pvm list --json 5", "unexpected argument '5' found: see `pvm help`"),
        ] {
            let error = Options::try_parse_from(words.split(' ')).unwrap_err();
            assert!(error.use_stderr(), "{words}");
            assert_eq!(usage_json(&error), json!({ "error": { "kind": "usage", "message": message } }), "{words}");
        }
        assert!(!Options::try_parse_from(["pvm", "--json", "--help"]).unwrap_err().use_stderr());
    }

    #[test]
    fn what_is_printed_as_json_commands_no_terminal() {
        let mut out = Vec::new();
        print_json(&mut out, &json!({ "name": "a\u{202e}b\u{9b}2J" })).unwrap();
        assert_eq!(out, b"{\"name\":\"a\\u202eb\\u009b2J\"}\n");
    }

    #[test]
    fn the_longest_times_are_no_limit() {
        let directory = crate::testing::TemporaryDirectory::new("timeout");
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::connect(&path).unwrap();
        drop(listener.accept().unwrap());
        assert!(matches!(wait(client, &Target::Id(5), Some(Duration::MAX)), Err(Error::Lost)));
    }
}
