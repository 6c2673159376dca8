//! Work that takes long and that others do: the toolstack that started a root, and the hotplug
//! script of a network device.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use xen_abi::DomId;
use xenctl::xenstore::Store;
use zooid_fork_plan::id::PvmId;

use super::config::ChildVif;
use super::vif;

/// A callback with the outcome, called in any thread.
pub type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Work of others. None of these calls waits.
pub trait Toolstack: Send + Sync + 'static {
    /// Destroys domains that a toolstack has started.
    fn destroy(&self, roots: Vec<DomId>, done: Done);

    /// Gives a child its network device, if its parent has one.
    fn attach_vif(&self, parent: DomId, child: PvmId, config: &ChildVif);
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
                let outcome = Command::new("xl").arg("destroy").arg(root.to_string()).stdin(Stdio::null()).output();
                let what = match outcome {
                    Ok(output) if output.status.success() => continue,
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => error.to_string(),
                };
                return done(Err(format!("xl destroy {root}: {what}")));
            }
            done(Ok(()));
        };
        if let Err(error) = thread::Builder::new().name("destroy".to_owned()).spawn(destroy) {
            log::error!("no thread to destroy a domain: {error}");
        }
    }

    fn attach_vif(&self, parent: DomId, child: PvmId, config: &ChildVif) {
        let (store, config) = (self.store.clone(), config.clone());
        let attach = move || {
            if let Err(error) = vif::attach(&store, parent, child.domain(), child, &config) {
                log::warn!(id = child.raw(); "no network device for a child: {error}");
            }
        };
        if let Err(error) = thread::Builder::new().name("vif".to_owned()).spawn(attach) {
            log::warn!(id = child.raw(); "no thread for a child's network device: {error}");
        }
    }
}
