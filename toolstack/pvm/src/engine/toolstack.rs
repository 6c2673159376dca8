//! Work that takes long and that others do: the toolstack that started a root, and the hotplug
//! script of a network device.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use xen_abi::DomId;
use xenctl::xenstore::Store;
use zooid_fork_plan::id::PvmId;

use super::config::ChildVif;
use super::{script, vif};

/// A callback with the outcome, called in any thread.
pub type Done = Box<dyn FnOnce(Result<(), String>) + Send>;
/// A callback with the reason for a failure, called in any thread.
pub type Failed = Box<dyn FnOnce(String) + Send>;

/// The directory of xenconsoled's logs of guests.
pub const CONSOLE_LOGS: &str = "/var/log/xen/console";
/// The longest time that `xl destroy` may take for a domain.
const DESTROY_LIMIT: Duration = Duration::from_secs(60);

/// Work of others. None of these calls waits.
pub trait Toolstack: Send + Sync + 'static {
    /// Destroys domains that a toolstack has started.
    fn destroy(&self, roots: Vec<DomId>, done: Done);

    /// Gives a child its network device, if its parent has one.
    fn attach_vif(&self, parent: DomId, child: PvmId, config: &ChildVif, failed: Failed);

    /// Keeps what a child has printed for which there was no console yet.
    fn keep_output(&self, name: &str, octets: &[u8]);
}

/// `xl`, and the scripts of Xen's tools.
pub struct Xl {
    /// The way to xenstore.
    pub store: Arc<Store>,
}

impl Toolstack for Xl {
    fn destroy(&self, roots: Vec<DomId>, done: Done) {
        let destroy = move || {
            for root in roots {
                let destroyed = script::run(Command::new("xl").arg("destroy").arg(root.to_string()), DESTROY_LIMIT);
                if let Err(why) = destroyed {
                    return done(Err(format!("xl destroy {root}: {why}")));
                }
            }
            done(Ok(()));
        };
        if let Err(error) = thread::Builder::new().name("destroy".to_owned()).spawn(destroy) {
            log::error!("no thread to destroy a domain: {error}");
        }
    }

    fn attach_vif(&self, parent: DomId, child: PvmId, config: &ChildVif, failed: Failed) {
        let (store, config) = (self.store.clone(), config.clone());
        let attach = move || {
            if let Err(error) = vif::attach(&store, parent, child.domain(), child, &config) {
                failed(error.to_string());
            }
        };
        if let Err(error) = thread::Builder::new().name("vif".to_owned()).spawn(attach) {
            log::warn!(id = child.raw(); "no thread for a child's network device: {error}");
        }
    }

    /// Appends it to the log that xenconsoled would have written, if it keeps one of the family.
    fn keep_output(&self, name: &str, octets: &[u8]) {
        let log = |name: &str| format!("{CONSOLE_LOGS}/guest-{name}.log");
        let Some((family, _)) = name.rsplit_once('-').filter(|_| !name.contains('/')) else { return };
        if !Path::new(&log(family)).exists() {
            return;
        }
        let opened = OpenOptions::new().append(true).create(true).open(log(name));
        if let Err(error) = opened.and_then(|mut file| file.write_all(octets)) {
            log::warn!(name; "its output is lost: {error}");
        }
    }
}
