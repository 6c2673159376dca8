//! A child's home in xenstore. It holds the nodes that Xen's tools read, so that `xl list`, `xl
//! console`, `xl destroy` and xenconsoled treat the child as any other domain, and the facts about
//! its family that a daemon needs when it starts anew.

use xen_abi::{DomId, Mfn, Port};
use xenctl::xenstore::{Access, Error, Permission, Store, Transaction};
use zooid_fork_plan::id::PvmId;

/// Octets of unread output that xenconsoled keeps, as libxl has it (LIBXL_XENCONSOLE_LIMIT).
const CONSOLE_LIMIT: &str = "1048576";

/// The content of a home.
pub struct Home<'a> {
    pub id: PvmId,
    pub name: &'a str,
    pub store: (Mfn, Port),
    pub root: PvmId,
    /// The ancestors, the root first.
    pub ancestors: &'a [PvmId],
}

/// Most ancestors that a home names: xenstored takes 4,096 octets in a node. A pVM with more
/// ancestors cannot fork; ended ones without frames do not count.
pub const ANCESTORS: usize = 300;

/// The path of a domain's home.
pub fn path(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

/// The path of libxl's own nodes of a domain.
fn libxl_path(domain: DomId) -> String {
    format!("/libxl/{domain}")
}

impl Home<'_> {
    /// Writes all but the console, for a domain that xenstored does not know yet.
    ///
    /// It is one transaction, because from a part of it a daemon that starts anew could not tell
    /// the family.
    pub fn create(&self, store: &Store) -> Result<(), Error> {
        store.transact(|store| self.write(store))
    }

    fn write(&self, store: &Transaction<'_>) -> Result<(), Error> {
        let domain = self.id.domain();
        let home = path(domain);
        let owner = |domain, access| Permission { domain, access };
        let read_only = [owner(DomId::DOM0, Access::None), owner(domain, Access::Read)];
        let read_write = [owner(domain, Access::None)];
        // The nodes below inherit the permissions.
        store.mkdir(&home)?;
        store.set_permissions(&home, &read_only)?;
        let ancestors: Vec<String> = self.ancestors.iter().map(PvmId::to_string).collect();
        for (key, value) in [
            ("name", self.name),
            ("domid", &domain.to_string()),
            ("console/limit", CONSOLE_LIMIT),
            ("console/type", "xenconsoled"),
            ("store/ring-ref", &self.store.0.0.to_string()),
            ("store/port", &self.store.1.0.to_string()),
            ("device", ""),
            ("zooid", &format!("{} {} {}", self.id, self.root, ancestors.join(","))),
        ] {
            store.write(&format!("{home}/{key}"), value)?;
        }
        for key in ["control/shutdown", "data"] {
            let node = format!("{home}/{key}");
            store.write(&node, "")?;
            store.set_permissions(&node, &read_write)?;
        }
        store.write(&format!("{}/type", libxl_path(domain)), "pv")
    }
}

/// Writes the place of the console of a domain that xenstored knows. xenconsoled looks at all
/// domains when one comes or goes, and maps every console that it finds. It would not hear of the
/// end of a domain that was never introduced.
pub fn show_console(store: &Store, domain: DomId, ring: Mfn, port: Port) -> Result<(), Error> {
    let console = format!("{}/console", path(domain));
    store.write(&format!("{console}/ring-ref"), &ring.0.to_string())?;
    store.write(&format!("{console}/port"), &port.0.to_string())
}

/// Writes the home of a memory owner, which only the daemon reads: its name for `xl list`, and the
/// frame of its table of members if it is that of a family.
pub fn create_memory_owner(store: &Store, id: PvmId, name: &str, root: PvmId, table: Option<Mfn>) -> Result<(), Error> {
    let domain = id.domain();
    let home = path(domain);
    let table = table.map(|table| ("members", table.0.to_string()));
    let nodes: Vec<(&str, String)> =
        [("name", name.to_owned()), ("domid", domain.to_string()), ("zooid", format!("{id} {root} "))]
            .into_iter()
            .chain(table)
            .collect();
    store.transact(|store| {
        store.mkdir(&home)?;
        store.set_permissions(&home, &[Permission { domain: DomId::DOM0, access: Access::None }])?;
        nodes.iter().try_for_each(|(key, value)| store.write(&format!("{home}/{key}"), value))?;
        store.write(&format!("{}/type", libxl_path(domain)), "pv")
    })
}

/// The frame of a memory owner's table of members.
pub fn members_table(store: &Store, domain: DomId) -> Option<Mfn> {
    store.read(&format!("{}/members", path(domain))).ok()?.parse().ok().map(Mfn)
}

/// xenconsoled has made the domain's console.
pub fn has_console(store: &Store, domain: DomId) -> bool {
    store.read(&format!("{}/console/tty", path(domain))).is_ok_and(|terminal| !terminal.is_empty())
}

/// Removes a domain's home. The node that marks it as one of ours goes last.
pub fn remove(store: &Store, domain: DomId) -> Result<(), Error> {
    store.remove(&libxl_path(domain))?;
    store.remove(&path(domain))
}

/// The pVMs and other domains whose homes were made here.
pub fn all(store: &Store) -> Result<Vec<PvmId>, Error> {
    let domains = store.list("/local/domain")?.into_iter().filter_map(|name| name.parse().ok().map(DomId));
    Ok(domains.filter_map(|domain| owner(store, domain)).collect())
}

/// The id in a home.
fn owner(store: &Store, domain: DomId) -> Option<PvmId> {
    let text = store.read(&format!("{}/zooid", path(domain))).ok()?;
    let id = PvmId::from_raw(text.split(' ').next()?.parse().ok()?)?;
    (id.domain() == domain).then_some(id)
}

/// The home belongs to another domain, which has the same number now.
pub fn is_of_another(store: &Store, id: PvmId) -> Result<bool, Error> {
    let is_there = |node: &str| match store.read(&format!("{}/{node}", path(id.domain()))) {
        Ok(_) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    };
    match is_there("zooid")? {
        true => Ok(owner(store, id.domain()).is_some_and(|other| other != id)),
        // A toolstack has made this one.
        false => is_there("vm"),
    }
}

/// Lets a domain announce itself to all later daemons, even if its kernel's file changes or goes.
pub fn allow(store: &Store, domain: DomId) -> Result<(), Error> {
    store.write(&format!("{}/zooid-announce", libxl_path(domain)), "1")
}

/// dom0 lets a domain announce itself as a pVM, whatever its kernel is. The node is beside libxl's,
/// where the domain can write nothing.
pub fn is_allowed(store: &Store, domain: DomId) -> Result<bool, Error> {
    match store.read(&format!("{}/zooid-announce", libxl_path(domain))) {
        Ok(value) => Ok(value == "1"),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The root and the ancestors that a child's home names.
pub fn family(store: &Store, id: PvmId) -> Option<(PvmId, Vec<PvmId>)> {
    let node = format!("{}/zooid", path(id.domain()));
    let text = store.read(&node).or_else(|_| store.read(&node)).ok()?;
    let mut words = text.split(' ');
    let number = |word: &str| PvmId::from_raw(word.parse().ok()?);
    if number(words.next()?) != Some(id) {
        return None;
    }
    let root = number(words.next()?)?;
    let ancestors = words.next()?.split(',').map(number).collect::<Option<Vec<_>>>()?;
    Some((root, ancestors))
}
