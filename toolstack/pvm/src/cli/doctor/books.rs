//! The comparison of three lists: the domains of Xen, the homes in xenstore, and pvmd's pVMs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use xen_abi::DomId;
use xenctl::xenstore::{self, Store};
use xenctl::{DomainInfo, Hypervisor};
use zooid_fork_plan::id::{Handle, Kind};

use super::{Finding, Mend};
use crate::engine::home::{libxl_path, owner, path};
use crate::engine::vif::backends;
use crate::engine::{PoolInfo, PvmInfo};

/// pvmd's answers.
pub(super) struct Known {
    pub pvms: Vec<PvmInfo>,
    pub pool: Vec<PoolInfo>,
}

/// The three lists at one time.
pub(super) struct Look {
    domains: Vec<DomainInfo>,
    /// Values of the nodes `zooid`, by domain.
    homes: BTreeMap<DomId, String>,
    /// None if no daemon runs.
    known: Option<Known>,
}

/// The reason for which there is no [`Look`].
#[derive(Debug)]
pub(super) enum Failure {
    Xen(xenctl::Error),
    Store(xenstore::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(error) => error.fmt(out),
            Self::Store(error) => write!(out, "xenstore: {error}"),
        }
    }
}

/// Something that is in one list and not in another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mismatch {
    /// A domain that was prepared, or begun, and that no pVM is waiting for.
    Unowned { domain: DomId, handle: [u8; 16] },
    /// A child that ended or runs, or a memory owner, without a daemon to see to it.
    Unattended { domain: DomId },
    /// A child that the daemon does not know.
    Unknown { domain: DomId, id: u32 },
    /// A child that has no home.
    Homeless { domain: DomId, id: u32 },
    /// A home of a domain that does not exist.
    Abandoned { domain: DomId, value: String },
    /// A home in which another domain lives.
    Occupied { domain: DomId },
    /// A pVM of the daemon's whose domain does not exist.
    Missing { id: u32, domain: DomId },
}

impl Look {
    /// Asks Xen and xenstore; `known` was asked before, so that a pVM that is in no other list has
    /// ended.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn take(xen: &impl Hypervisor, store: &Store, known: Option<Known>) -> Result<Self, Failure> {
        let mut homes = BTreeMap::new();
        for domain in store.list("/local/domain").map_err(Failure::Store)?.iter().filter_map(|name| name.parse().ok()) {
            match store.read(&format!("{}/zooid", path(DomId(domain)))) {
                Ok(value) => drop(homes.insert(DomId(domain), value)),
                Err(xenstore::Error::NotFound) => {}
                Err(xenstore::Error::NotUtf8) => drop(homes.insert(DomId(domain), String::new())),
                Err(error) => return Err(Failure::Store(error)),
            }
        }
        // A domain gets its home after it was made, and loses it after it was destroyed.
        let domains = xen.domains().map_err(Failure::Xen)?;
        Ok(Self { domains, homes, known })
    }

    fn domain(&self, id: DomId) -> Option<&DomainInfo> {
        self.domains.iter().find(|info| info.id == id)
    }

    /// The handles of pvmd's domains that live.
    fn ours(&self) -> impl Iterator<Item = (&DomainInfo, Option<Handle>)> {
        let ours = |info: &DomainInfo| {
            let handle = Handle::parse(info.id, &info.handle);
            (handle.is_some() || info.handle == Handle::UNFINISHED).then_some(handle)
        };
        self.domains.iter().filter(|info| !info.is_dying()).filter_map(move |info| Some((info, ours(info)?)))
    }

    fn mismatches(&self) -> BTreeSet<Mismatch> {
        let mut all = BTreeSet::new();
        for (info, handle) in self.ours() {
            let domain = info.id;
            let id = handle.map_or(0, |handle| handle.id.raw());
            let is_listed = |known: &Known| known.pvms.iter().any(|pvm| pvm.id == id);
            let is_waiting = |known: &Known| known.pool.iter().any(|prepared| prepared.id == id);
            let kind = handle.map_or(Kind::Prepared, |handle| handle.kind);
            match (&self.known, kind) {
                (Some(known), Kind::Prepared) if is_waiting(known) || is_listed(known) => {}
                (_, Kind::Prepared) => drop(all.insert(Mismatch::Unowned { domain, handle: info.handle })),
                (Some(known), Kind::Child) if !is_listed(known) && !is_waiting(known) => {
                    all.insert(Mismatch::Unknown { domain, id });
                }
                (None, Kind::Ended) => drop(all.insert(Mismatch::Unattended { domain })),
                _ => {}
            }
            if kind == Kind::Child && !self.homes.contains_key(&domain) {
                all.insert(Mismatch::Homeless { domain, id });
            }
        }
        for (domain, value) in &self.homes {
            let named = owner(value, *domain);
            match self.domain(*domain) {
                None => drop(all.insert(Mismatch::Abandoned { domain: *domain, value: value.clone() })),
                Some(info) => {
                    let handle = Handle::parse(info.id, &info.handle);
                    let is_its_own = info.handle == Handle::UNFINISHED || handle.map(|handle| handle.id) == named;
                    if !is_its_own || handle.is_none() && info.handle != Handle::UNFINISHED {
                        all.insert(Mismatch::Occupied { domain: *domain });
                    }
                }
            }
        }
        let known = self.known.iter().flat_map(|known| &known.pvms).filter(|pvm| pvm.ended.is_none());
        for pvm in known.filter(|pvm| self.domain(DomId(pvm.domid)).is_none()) {
            all.insert(Mismatch::Missing { id: pvm.id, domain: DomId(pvm.domid) });
        }
        all
    }
}

/// The findings about what both looks have: anything else changes by itself.
pub(super) fn judge(first: &Look, second: &Look) -> Vec<Finding> {
    let both: Vec<Mismatch> = first.mismatches().intersection(&second.mismatches()).cloned().collect();
    let runs = second.known.is_some();
    if both.is_empty() {
        let (who, count) = (if runs { "Xen, xenstore and pvmd" } else { "Xen and xenstore" }, second.ours().count());
        return vec![Finding::good("domains", format!("{who} agree about pvmd's domains, of which there are {count}"))];
    }
    both.into_iter().map(|mismatch| mismatch.finding(runs)).collect()
}

impl Mismatch {
    /// The finding, where a daemon runs or does not.
    fn finding(self, runs: bool) -> Finding {
        let restart = if runs { "`systemctl restart pvmd`" } else { "`systemctl start pvmd`" };
        match &self {
            Self::Unowned { domain, .. } => {
                if runs {
                    return Finding::note(
                        "domains",
                        format!("domain {domain} was prepared for a child, and pvmd does not list it"),
                        format!("look again: a large one takes long to be built; {restart} removes it, pVMs live on"),
                    );
                }
                let what = format!("domain {domain} was prepared for a child, and nobody owns it");
                let remedy = format!("{restart}: it removes it, pVMs live on");
                Finding::bad("domains", what, remedy).mended_by(Mend::Mismatch(self))
            }
            Self::Unattended { domain } => Finding::note(
                "domains",
                format!("the pVM of domain {domain} has ended, and its parent was not told"),
                format!("{restart}: it tells the parent and removes the domain"),
            ),
            Self::Unknown { domain, id } => Finding::bad(
                "domains",
                format!("domain {domain} is the pVM {id}, which pvmd does not know"),
                format!("{restart}: it takes it over, or says in its log why it cannot"),
            ),
            Self::Homeless { domain, id } => Finding::bad(
                "domains",
                format!("domain {domain}, the pVM {id}, has no home in xenstore: no tool shows its name"),
                format!("`pvm kill {id}` if it is not needed; without a home it is an orphan after a restart of pvmd"),
            ),
            Self::Abandoned { domain, .. } => Finding::bad(
                "xenstore",
                format!("{} is the home of a domain that has gone", path(*domain)),
                format!("`xenstore-rm {}`", path(*domain)),
            )
            .mended_by(Mend::Mismatch(self)),
            Self::Occupied { domain } => Finding::bad(
                "xenstore",
                format!("the home of domain {domain} says that it is another pVM's"),
                format!("{restart}; then `xenstore-rm {}/zooid` if it is still so", path(*domain)),
            ),
            Self::Missing { id, domain } => Finding::bad(
                "domains",
                format!("pvmd lists the pVM {id}, whose domain {domain} does not exist"),
                format!("{restart}: it lists the domains anew"),
            ),
        }
    }

    /// Mends it, if it is still as it was seen. `alone`: no daemon runs, and none can start.
    ///
    /// # Errors
    /// It has changed, nothing can be done, or Xen or xenstore refuse; one line for people.
    pub fn mend(&self, xen: &impl Hypervisor, store: &Store, alone: bool) -> Result<(), String> {
        match self {
            Self::Abandoned { domain, value } => remove_home(xen, store, *domain, value),
            Self::Unowned { domain, handle } if alone => {
                match xen.domain_info(*domain).map_err(|error| error.to_string())? {
                    Some(info) if info.handle == *handle => {}
                    _ => return Err("it has changed meanwhile".to_owned()),
                }
                xen.destroy(*domain).map_err(|error| error.to_string())?;
                match store.read(&format!("{}/zooid", path(*domain))) {
                    Ok(value) => remove_home(xen, store, *domain, &value),
                    Err(xenstore::Error::NotFound) => Ok(()),
                    Err(error) => Err(format!("xenstore: {error}")),
                }
            }
            Self::Unowned { .. } => Err("a daemon has started meanwhile, which removes it".to_owned()),
            _ => Err("only pvmd can mend it".to_owned()),
        }
    }
}

/// Removes a home whose domain does not exist, with the nodes that pvmd made for it elsewhere. A
/// domain that gets its number meanwhile keeps its own: a change of the nodes undoes all.
fn remove_home(xen: &impl Hypervisor, store: &Store, domain: DomId, value: &str) -> Result<(), String> {
    let home = path(domain);
    let mut has_changed = false;
    let result = store.transact(|store| {
        let now = match store.read(&format!("{home}/zooid")) {
            Err(xenstore::Error::NotUtf8) => Ok(String::new()),
            now => now,
        };
        let is_free = matches!(xen.domain_info(domain), Ok(info) if info.is_none_or(|info| info.is_dying()));
        has_changed = now.as_deref() != Ok(value) || !is_free;
        if has_changed {
            return Ok(());
        }
        store.remove(&backends(domain))?;
        store.remove(&libxl_path(domain))?;
        store.remove(&home)
    });
    match result {
        Ok(()) if has_changed => Err("it has changed meanwhile".to_owned()),
        result => result.map_err(|error| format!("xenstore: {error}")),
    }
}
