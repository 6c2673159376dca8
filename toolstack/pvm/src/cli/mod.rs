//! The command `pvm`: asks the daemon, starts guests with `xl`, and shows the results.

mod client;
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

use std::io::{ErrorKind, Write, stdout};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
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
use crate::protocol::Request;

/// Carries out `pvm`.
pub fn main() -> ExitCode {
    let options = Options::parse();
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

fn report(json: bool, error: &Error) {
    if json {
        eprintln!("{}", error.to_json());
    } else {
        eprintln!("pvm: {error}");
    }
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
    match client.next(timeout.map(|timeout| Instant::now() + timeout))? {
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
    put(out, (line + "\n").as_bytes())
}

fn surroundings() -> Surroundings {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The first of these variables that is set decides (locale(7)).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let locale = locale.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    Surroundings { now_us: now.as_micros() as u64, unicode: locale.contains("utf-8") || locale.contains("utf8") }
}
