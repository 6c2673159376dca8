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
mod settings;
mod socket;
mod systemd;
#[cfg(test)]
mod tests;

pub use daemon::main;
pub use history::History;
pub use options::Options;
pub use socket::{Socket, SocketError};

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::engine::Handle;
use crate::protocol::{Fault, FaultKind, Line};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Pause when Linux has no file descriptor or thread left.
const BREATH: Duration = Duration::from_millis(100);

/// Serves all clients until the process ends.
pub fn serve(listener: &UnixListener, engine: &Handle, history: &History) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let started = stream.and_then(|stream| {
            let guest = Guest::enter(&connections);
            if guest.number > MAX_CONNECTIONS {
                return turn_away(stream);
            }
            let connection = connection::Connection::new(stream, engine.clone(), history.clone())?;
            let run = move || {
                let _guest = guest;
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

fn turn_away(mut stream: UnixStream) -> io::Result<()> {
    // The line fits into the socket's buffer. If a client makes even this wait, the daemon does not
    // wait for it.
    stream.set_nonblocking(true)?;
    let fault = Fault::new(FaultKind::Busy, "pvmd has as many connections as it takes: try again later");
    let _ = connection::write_line(&mut stream, &Line::Error(fault));
    Ok(())
}

/// Counts a connection until it is closed.
struct Guest {
    count: Arc<AtomicUsize>,
    number: usize,
}

impl Guest {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { count: count.clone(), number }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
