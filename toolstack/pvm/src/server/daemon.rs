//! The run of `pvmd`, from its options to its end.

use std::io::{self, Write as _, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use std::{fmt, process, thread};

use clap::Parser;
use log::LevelFilter;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::settings::{BadConfig, Level};
use super::{History, Options, Socket, SocketError, logging, options, serve, systemd};
use crate::engine::{self, Closed, Command, Event, Handle, StartError};
use crate::plain::plain;
use crate::protocol::SOCKET;

/// Events that may wait for the thread that remembers them.
const EVENT_BACKLOG: usize = 4096;
/// Time that the engine may take to end in order.
const QUIT_LIMIT: Duration = Duration::from_secs(20);

/// Set before the engine is asked to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The reason for which the daemon ended without being stopped.
#[derive(Debug)]
enum Failure {
    Config(BadConfig),
    Socket(SocketError),
    Engine(StartError),
    Io(io::Error),
    /// The engine ended by itself: it has logged why.
    Ended,
}

/// Carries out `pvmd`.
pub fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be a file on a full disk.
            let _ = writeln!(stderr(), "pvmd: {}", plain(&failure.to_string()));
            ExitCode::from(match failure {
                Failure::Config(_) => 2,
                Failure::Socket(SocketError::Taken(_)) => 3,
                Failure::Socket(_) | Failure::Engine(_) | Failure::Io(_) | Failure::Ended => 1,
            })
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    let file = options.config.as_deref();
    let read = super::settings::Settings::read(file.unwrap_or(Path::new(options::CONFIG)), file.is_some());
    let settings = options.settings.or(read.map_err(Failure::Config)?);
    let config = settings.config().map_err(Failure::Config)?;
    if options.check {
        let _ = writeln!(stdout(), "pvmd: the configuration is good");
        return Ok(());
    }
    let Level(level) = settings.log.unwrap_or(Level(LevelFilter::Info));
    logging::init(level, settings.log_format.unwrap_or_default());

    // The socket comes first, because its lock makes this the only daemon.
    let path = settings.socket.as_deref().unwrap_or(Path::new(SOCKET));
    let socket = Socket::bind(path, settings.group.as_deref()).map_err(Failure::Socket)?;
    let listener = socket.listener().map_err(Failure::Io)?;
    let (engine, thread) = engine::start(config).map_err(Failure::Engine)?;

    let history = History::default();
    let events = subscribe(&engine).map_err(|_| Failure::Ended)?;
    spawn("history", {
        let (history, engine) = (history.clone(), engine.clone());
        move || remember(events, &history, &engine)
    })?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Failure::Io)?;
    spawn("signals", {
        let engine = engine.clone();
        move || stop_at_first(&mut signals, &engine)
    })?;
    spawn("socket", move || serve(&listener, &engine, &history))?;
    log::info!(version = env!("CARGO_PKG_VERSION"), socket = path.display().to_string(); "ready");
    systemd::notify(systemd::READY);

    match thread.join() {
        Ok(()) if STOPPED.load(Relaxed) => Ok(()),
        _ => Err(Failure::Ended),
    }
}

/// All later events of the engine.
fn subscribe(engine: &Handle) -> Result<Receiver<Event>, Closed> {
    let (events, receiver) = sync_channel(EVENT_BACKLOG);
    engine.send(Command::Subscribe { events })?;
    Ok(receiver)
}

/// Takes events into the history until the engine ends. The engine waits for no subscriber: it drops
/// one that is too slow, as this thread may be on a busy host.
fn remember(mut events: Receiver<Event>, history: &History, engine: &Handle) {
    loop {
        history.record(&events);
        match subscribe(engine) {
            Ok(next) => events = next,
            Err(Closed) => return,
        }
        log::warn!("events came faster than they could be remembered: some are missing");
    }
}

/// Lets the engine end at the first signal, and gives up at the second or when the engine takes too
/// long.
fn stop_at_first(signals: &mut Signals, engine: &Handle) {
    let mut forever = signals.forever();
    forever.next();
    log::info!("stopping");
    systemd::notify(systemd::STOPPING);
    STOPPED.store(true, Relaxed);
    let engine = engine.clone();
    let _ = spawn("quit", move || {
        let _ = engine.ask(|reply| Command::Quit { reply });
    });
    let _ = spawn("limit", || {
        thread::sleep(QUIT_LIMIT);
        log::error!("the engine does not end: its prepared domains are left to the next daemon");
        process::exit(1);
    });
    forever.next();
    process::exit(1);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(Failure::Io)
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(out),
            Self::Socket(error) => error.fmt(out),
            Self::Engine(error) => error.fmt(out),
            Self::Io(error) => write!(out, "Linux refused a thread or a descriptor: {error}"),
            Self::Ended => out.write_str("the engine has ended: see the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EventKind, pair};

    #[test]
    fn events_are_remembered_again_after_a_burst() {
        let (engine, inbox) = pair().unwrap();
        let history = History::default();
        let (_, future) = history.follow();
        let take = || match inbox.take() {
            Some(Command::Subscribe { events }) => Some(events),
            _ => None,
        };
        let receiver = subscribe(&engine).unwrap();
        let first = take().unwrap();
        let thread = thread::spawn({
            let history = history.clone();
            move || remember(receiver, &history, &engine)
        });
        let event =
            |id| Event { at_us: 1, id, domid: 1, name: "x".into(), kind: EventKind::Trouble { message: "y".into() } };
        first.send(event(1)).unwrap();
        // The engine drops a subscriber whose channel is full.
        drop(first);
        let second = loop {
            if let Some(events) = take() {
                break events;
            }
            thread::yield_now();
        };
        second.send(event(2)).unwrap();
        drop((inbox, second));
        thread.join().unwrap();
        assert_eq!(history.past().iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            future.iter().map(|event| event.id).collect::<Vec<_>>(),
            [1],
            "followers hear of the gap by their end"
        );
    }
}
