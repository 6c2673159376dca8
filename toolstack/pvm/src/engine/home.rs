//! A child's home in xenstore: what Xen's own tools look for, so that `xl list`, `xl console`, `xl destroy` and xenconsoled treat it as
//! any other domain, and what a daemon that starts anew must know of its family.

use xen_abi::{DomId, Mfn, Port};
use xenctl::xenstore::{Access, Error, Permission, Store, Transaction};
use zooid_fork_plan::id::PvmId;

/// Octets that xenconsoled keeps of output that nobody reads, as libxl has it (LIBXL_XENCONSOLE_LIMIT).
const CONSOLE_LIMIT: &str = "1048576";

/// What a home says.
pub struct Home<'a> {
    pub id: PvmId,
    pub name: &'a str,
    pub store: (Mfn, Port),
    pub root: PvmId,
    /// The ancestors, the root first.
    pub ancestors: &'a [PvmId],
}

/// Most ancestors that a home names: xenstored takes 4,096 octets in a node. A pVM that has more, dead ones without frames not counted,
/// cannot fork.
pub const ANCESTORS: usize = 300;

/// The path of a domain's home.
pub fn path(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

/// Where libxl keeps what is its own.
fn libxl_path(domain: DomId) -> String {
    format!("/libxl/{domain}")
}

impl Home<'_> {
    /// Writes it all but for the console, for a domain that xenstored does not know yet.
    ///
    /// In one step: of a part of it, a daemon that starts anew would not know whose it was.
    pub fn create(&self, store: &Store) -> Result<(), Error> {
        store.transact(|store| self.write(store))
    }

    fn write(&self, store: &Transaction<'_>) -> Result<(), Error> {
        let domain = self.id.domain();
        let home = path(domain);
        let owner = |domain, access| Permission { domain, access };
        let read_only = [owner(DomId::DOM0, Access::None), owner(domain, Access::Read)];
        let read_write = [owner(domain, Access::None)];
        // What is written below inherits the permissions.
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

/// Tells where the console of a domain is that xenstored knows. xenconsoled looks at all domains when one comes or goes, and maps every console
/// that it finds; of the end of a domain that was never introduced nobody would tell it.
pub fn show_console(store: &Store, domain: DomId, ring: Mfn, port: Port) -> Result<(), Error> {
    let console = format!("{}/console", path(domain));
    store.write(&format!("{console}/ring-ref"), &ring.0.to_string())?;
    store.write(&format!("{console}/port"), &port.0.to_string())
}

/// Writes the home of a memory owner, which has nobody who reads it but the daemon: its name for `xl list`, and where its table of members is,
/// if it is that of a family.
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

/// Where a memory owner's table of members is.
pub fn members_table(store: &Store, domain: DomId) -> Option<Mfn> {
    store.read(&format!("{}/members", path(domain))).ok()?.parse().ok().map(Mfn)
}

/// Whether xenconsoled has made the domain's console.
pub fn has_console(store: &Store, domain: DomId) -> bool {
    store.read(&format!("{}/console/tty", path(domain))).is_ok_and(|terminal| !terminal.is_empty())
}

/// Removes a domain's home. What tells that it is one of ours goes last.
pub fn remove(store: &Store, domain: DomId) -> Result<(), Error> {
    store.remove(&libxl_path(domain))?;
    store.remove(&path(domain))
}

/// The pVMs and other domains whose homes were made here.
pub fn all(store: &Store) -> Result<Vec<PvmId>, Error> {
    let domains = store.list("/local/domain")?.into_iter().filter_map(|name| name.parse().ok().map(DomId));
    Ok(domains.filter_map(|domain| owner(store, domain)).collect())
}

/// The id that a home was made for.
fn owner(store: &Store, domain: DomId) -> Option<PvmId> {
    let text = store.read(&format!("{}/zooid", path(domain))).ok()?;
    let id = PvmId::from_raw(text.split(' ').next()?.parse().ok()?)?;
    (id.domain() == domain).then_some(id)
}

/// Whether a home is that of another domain, which has the same number now.
pub fn is_of_another(store: &Store, id: PvmId) -> Result<bool, Error> {
    let is_there = |node: &str| match store.read(&format!("{}/{node}", path(id.domain()))) {
        Ok(_) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    };
    match is_there("zooid")? {
        true => Ok(owner(store, id.domain()).is_some_and(|other| other != id)),
        // One that a toolstack has made.
        false => is_there("vm"),
    }
}

/// Lets a domain announce itself to every daemon that comes after this one, whatever becomes of its kernel's file.
pub fn allow(store: &Store, domain: DomId) -> Result<(), Error> {
    store.write(&format!("{}/zooid-announce", libxl_path(domain)), "1")
}

/// Whether dom0 lets a domain announce itself as a pVM, whatever its kernel is called: by a node beside libxl's, where the domain can
/// write nothing.
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
