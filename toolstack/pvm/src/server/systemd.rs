//! Reports of the daemon's state to the service manager (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon takes requests.
pub const READY: &str = "READY=1";
/// The daemon is about to end.
pub const STOPPING: &str = "STOPPING=1";

/// Reports a state to the service manager, if there is one. A failure is ignored.
pub fn notify(state: &str) {
    if let Some(socket) = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty())
        && let Err(error) = send(&socket, state)
    {
        log::warn!("cannot tell systemd {state}: {error}");
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not take it must not hold the daemon.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryDirectory;

    #[test]
    fn the_manager_hears_it_on_either_kind_of_socket() {
        let directory = TemporaryDirectory::new("systemd");
        let path = directory.path().join("notify");
        let name = format!("pvm-test-{}", std::process::id());
        let managers = [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}"), UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap()),
        ];
        for (socket, manager) in managers {
            send(&socket, READY).unwrap();
            let mut buffer = [0; 32];
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        assert!(send("/no/such/socket", READY).is_err());
    }

    #[test]
    fn a_manager_that_does_not_listen_holds_nobody() {
        let directory = TemporaryDirectory::new("deaf");
        let path = directory.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        while send(path.to_str().unwrap(), READY).is_ok() {}
    }
}
