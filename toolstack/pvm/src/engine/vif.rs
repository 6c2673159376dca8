//! A child's network device: the nodes and the script that libxl has for a `vif=` line
//! (docs/misc/xenstore-paths.pandoc; public/io/netif.h), and the child's address.

use std::fmt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use xen_abi::DomId;
use xenctl::xenstore::{Access, Error, Permission, Store};
use zooid_fork_plan::id::PvmId;

use super::config::ChildVif;
use super::{home, mac, script};

/// `XenbusStateInitialising` (public/io/xenbus.h).
const INITIALISING: &str = "1";
/// The longest time that netback may take to see a device; below, the time between two looks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// The longest time that the script may take.
const SCRIPT_LIMIT: Duration = Duration::from_secs(10);

/// The reason for which a child has no network device.
#[derive(Debug)]
pub enum VifError {
    /// xenstore refused something.
    Store(Error),
    /// dom0's netback does not take the device: is the module xen-netback loaded?
    NoBackend,
    /// The script could not be run, or failed.
    Script(String),
}

impl fmt::Display for VifError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(out, "xenstore: {error}"),
            Self::NoBackend => out.write_str("netback does not answer: is the module xen-netback loaded?"),
            Self::Script(why) => out.write_str(why),
        }
    }
}

impl From<Error> for VifError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The node above netback's halves of all devices of a domain.
pub fn backends(domain: DomId) -> String {
    format!("/local/domain/0/backend/vif/{domain}")
}

fn backend(domain: DomId) -> String {
    format!("{}/0", backends(domain))
}

/// Gives a child a device, if its parent has one. If the child ends meanwhile, nothing is left
/// behind.
pub fn attach(store: &Store, parent: DomId, child: DomId, id: PvmId, vif: &ChildVif) -> Result<(), VifError> {
    let has_device = store.list(&format!("{}/device/vif", home::path(parent))).is_ok_and(|devices| !devices.is_empty());
    if !has_device || !announce(store, child, id, vif)? {
        return Ok(());
    }
    let backend = backend(child);
    let give_up = Instant::now() + PATIENCE;
    loop {
        match store.read(&format!("{backend}/state")) {
            Ok(state) if state != INITIALISING => break,
            // The child has ended meanwhile.
            Err(Error::NotFound) => return Ok(()),
            _ if Instant::now() >= give_up => return Err(VifError::NoBackend),
            _ => thread::sleep(PAUSE),
        }
    }
    match plug_in(child, &backend, vif) {
        // For a device that has gone, the script's error does not matter.
        Err(_) if store.read(&format!("{backend}/state")).is_err_and(|error| error == Error::NotFound) => Ok(()),
        result => result,
    }
}

/// Writes both halves; false if the child has gone.
fn announce(store: &Store, child: DomId, id: PvmId, vif: &ChildVif) -> Result<bool, Error> {
    let home = home::path(child);
    let frontend = format!("{home}/device/vif/0");
    let backend = backend(child);
    let mac = mac::choose(id, &vif.bridge);
    let mut alive = false;
    store.transact(|store| {
        alive = store.read(&format!("{home}/zooid")).is_ok();
        if !alive {
            return Ok(());
        }
        store.write(&format!("{home}/data/zooid-net"), &vif.net)?;
        let owner = |domain, access| Permission { domain, access };
        for (path, permissions, values) in [
            (
                &backend,
                [owner(DomId::DOM0, Access::None), owner(child, Access::Read)],
                [
                    ("frontend", frontend.as_str()),
                    ("frontend-id", &child.to_string()),
                    ("online", "1"),
                    ("handle", "0"),
                    ("mac", &mac),
                    ("bridge", &vif.bridge),
                    ("script", &vif.script),
                    ("type", "vif"),
                    ("state", INITIALISING),
                ]
                .as_slice(),
            ),
            (
                &frontend,
                [owner(child, Access::None), owner(DomId::DOM0, Access::Read)],
                [
                    ("backend", backend.as_str()),
                    ("backend-id", "0"),
                    ("handle", "0"),
                    ("mac", &mac),
                    ("state", INITIALISING),
                ]
                .as_slice(),
            ),
        ] {
            store.mkdir(path)?;
            store.set_permissions(path, &permissions)?;
            for (key, value) in values {
                store.write(&format!("{path}/{key}"), value)?;
            }
        }
        Ok(())
    })?;
    Ok(alive)
}

/// Has the hotplug script put the device on the bridge, as libxl does.
fn plug_in(child: DomId, backend: &str, vif: &ChildVif) -> Result<(), VifError> {
    let mut command = Command::new(&vif.script);
    command
        .args(["online", "type_if=vif"])
        .env("XENBUS_PATH", backend.trim_start_matches("/local/domain/0/"))
        .env("XENBUS_TYPE", "vif")
        .env("XENBUS_BASE_PATH", "backend")
        .env("vif", format!("vif{child}.0"));
    script::run(&mut command, SCRIPT_LIMIT).map_err(|why| VifError::Script(format!("{}: {why}", vif.script)))
}
