//! The daemon around the engine: its configuration, its log, its socket, and its place among the
//! host's services.
//!
//! There is a thread for each connection, because each waits for one thing at a time and there are
//! few. They share the engine's [`Handle`] and the [`History`] of events.

mod connection;
mod daemon;
mod history;
mod logging;
mod options;
mod places;
mod settings;
mod socket;
mod systemd;
#[cfg(test)]
mod tests;

pub use daemon::main;
pub use history::History;
pub use options::{CONFIG, Options};
pub(crate) use settings::Settings;
pub use socket::{Socket, SocketError};

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;

use crate::engine::Handle;
use crate::protocol::{Fault, FaultKind};
use connection::{Connection, LIMITS, Limits, Stream, dismiss, gave_way};
use places::{Full, Places};

/// Pause when Linux has no file descriptor or thread left.
const BREATH: Duration = Duration::from_millis(100);

/// Serves all clients until the process ends.
pub fn serve(listener: &UnixListener, engine: &Handle, history: &History) {
    serve_within(LIMITS, listener, engine, history);
}

fn serve_within(limits: Limits, listener: &UnixListener, engine: &Handle, history: &History) {
    let places = Places::<Stream>::new();
    for stream in listener.incoming() {
        let started = stream.and_then(|stream| {
            let stream = Arc::new(stream);
            let is_root = socket_peercred(&*stream).is_ok_and(|peer| peer.uid.is_root());
            let (place, gone) = match places.enter(is_root, Instant::now(), stream.clone()) {
                Ok(entered) => entered,
                Err(Full) => {
                    let what = "pvmd has as many connections as it takes: try again later";
                    dismiss(&stream, Fault::new(FaultKind::Busy, what));
                    return Ok(());
                }
            };
            if let Some(gone) = gone {
                dismiss(&gone, gave_way());
            }
            let connection = Connection::new(stream, place, limits, engine.clone(), history.clone())?;
            let run = move || {
                if let Err(error) = connection.serve() {
                    log::debug!("a connection ended: {error}");
                }
            };
            thread::Builder::new().name("connection".to_owned()).spawn(run).map(drop)
        });
        if let Err(error) = started {
            log::warn!("cannot serve a connection: {error}");
            thread::sleep(BREATH);
        }
    }
}
