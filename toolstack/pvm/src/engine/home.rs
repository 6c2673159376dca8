//! A child's home in xenstore. It holds the nodes that Xen's tools read, so that `xl list`, `xl
//! console`, `xl destroy` and xenconsoled treat the child as any other domain, and the facts about
//! its family that a daemon needs when it starts anew.

use xen_abi::{DomId, Mfn, Port};
use xenctl::xenstore::{Access, Command, Error, Permission, Store};
use zooid_fork_plan::id::PvmId;

use super::books::Rings;
use super::vif;

/// Octets of unread output that xenconsoled keeps, as libxl has it (LIBXL_XENCONSOLE_LIMIT).
const CONSOLE_LIMIT: &str = "1048576";

/// The content of the mark of a home.
pub struct Home<'a> {
    pub id: PvmId,
    pub name: &'a str,
    pub rings: Rings,
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
pub fn libxl_path(domain: DomId) -> String {
    format!("/libxl/{domain}")
}

impl Home<'_> {
    /// Marks the home as one of ours, and names the domain for `xl list`. All else is written when
    /// the domain is introduced, which a child that ends soon never is.
    ///
    /// The mark comes first, and by itself: a daemon that starts anew finds a part of a home by it.
    pub fn mark(&self, store: &Store) -> Result<(), Error> {
        let home = path(self.id.domain());
        let ancestors: Vec<String> = self.ancestors.iter().map(PvmId::to_string).collect();
        let Rings { console, store: ring } = self.rings;
        let rings = [console.0.0, console.1.0.into(), ring.0.0, ring.1.0.into()].map(|number: u64| number.to_string());
        let mark = format!("{} {} {} {}", self.id, self.root, ancestors.join(","), rings.join(","));
        store.write(&format!("{home}/zooid"), &mark)?;
        store.write(&format!("{home}/name"), self.name)
    }
}

/// Fills the home of a domain that xenstored does not know yet, but for the console.
pub fn fill(store: &Store, domain: DomId, rings: &Rings) -> Result<(), Error> {
    let home = path(domain);
    let node = |key: &str| format!("{home}/{key}");
    let owner = |domain, access| Permission { domain, access };
    let read_only = [owner(DomId::DOM0, Access::None), owner(domain, Access::Read)];
    let read_write = [owner(domain, Access::None)];
    let nodes = [
        ("domid", &*domain.to_string()),
        ("console/limit", CONSOLE_LIMIT),
        ("console/type", "xenconsoled"),
        ("store/ring-ref", &rings.store.0.to_string()),
        ("store/port", &rings.store.1.0.to_string()),
        ("device", ""),
        ("control/shutdown", ""),
        ("data", ""),
    ]
    .map(|(key, value)| (node(key), value.as_bytes().to_vec()));
    let (libxl, name) = (format!("{}/type", libxl_path(domain)), node("name"));
    // New nodes have the permissions of the one above.
    let mut commands = vec![Command::SetPermissions(&home, &read_only), Command::SetPermissions(&name, &read_only)];
    commands.extend(nodes.iter().map(|(path, value)| Command::Write(path, value)));
    let [.., (shutdown, _), (data, _)] = &nodes;
    commands.extend([shutdown, data].map(|path| Command::SetPermissions(path, &read_write)));
    commands.push(Command::Write(&libxl, b"pv"));
    store.batch(&commands)
}

/// Writes the place of the console of a domain that xenstored knows. xenconsoled looks at all
/// domains when one comes or goes, and maps every console that it finds. It would not hear of the
/// end of a domain that was never introduced.
pub fn show_console(store: &Store, domain: DomId, (ring, port): (Mfn, Port)) -> Result<(), Error> {
    let console = format!("{}/console", path(domain));
    let nodes = [("port", port.0.to_string()), ("ring-ref", ring.0.to_string())];
    let nodes = nodes.map(|(key, value)| (format!("{console}/{key}"), value));
    store.batch(&nodes.each_ref().map(|(path, value)| Command::Write(path, value.as_bytes())))
}

/// The rings that the mark of a child's home names; none if it is introduced and its console shown.
pub fn rings(store: &Store, id: PvmId) -> Result<Option<Rings>, Error> {
    let domain = id.domain();
    match store.read(&format!("{}/console/ring-ref", path(domain))) {
        Ok(_) => return Ok(None),
        Err(Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    let mark = store.read(&format!("{}/zooid", path(domain)))?;
    let numbers: Option<Vec<u64>> =
        mark.split(' ').nth(3).and_then(|rings| rings.split(',').map(|number| number.parse().ok()).collect());
    let Some(&[console, console_port, ring, ring_port]) = numbers.as_deref() else { return Ok(None) };
    let port = |port| u32::try_from(port).map(Port).ok();
    let rings = port(console_port).zip(port(ring_port));
    Ok(rings.map(|(console_port, ring_port)| Rings {
        console: (Mfn(console), console_port),
        store: (Mfn(ring), ring_port),
    }))
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

/// xenconsoled was shown the domain's console, and has not made it yet.
pub fn awaits_console(store: &Store, domain: DomId) -> bool {
    let node = |key| store.read(&format!("{}/console/{key}", path(domain)));
    !node("tty").is_ok_and(|terminal| !terminal.is_empty()) && node("ring-ref").is_ok()
}

/// Removes the home of a domain that was not introduced.
pub fn remove_mark(store: &Store, domain: DomId) -> Result<(), Error> {
    store.batch(&[Command::Remove(&path(domain))])
}

/// Removes a domain's home, and the network device that it had: netback drops a device that is gone
/// from xenstore. The node that marks the home as one of ours goes last. A device that was announced
/// just before is removed behind it, because without the mark none is announced.
pub fn remove(store: &Store, domain: DomId) -> Result<(), Error> {
    let device = vif::backends(domain);
    store.batch(&[Command::Remove(&device), Command::Remove(&libxl_path(domain))])?;
    store.batch(&[Command::Remove(&path(domain)), Command::Remove(&device)])
}

/// The pVMs and other domains whose homes were made here.
pub fn all(store: &Store) -> Result<Vec<PvmId>, Error> {
    let domains = store.list("/local/domain")?.into_iter().filter_map(|name| name.parse().ok().map(DomId));
    let id = |domain| owner(&store.read(&format!("{}/zooid", path(domain))).ok()?, domain);
    Ok(domains.filter_map(id).collect())
}

/// The id in the mark of a domain's home.
pub fn owner(mark: &str, domain: DomId) -> Option<PvmId> {
    let id = PvmId::from_raw(mark.split(' ').next()?.parse().ok()?)?;
    (id.domain() == domain).then_some(id)
}

/// The home belongs to another domain, which has the same number now.
pub fn is_of_another(store: &Store, id: PvmId) -> Result<bool, Error> {
    let read = |node: &str| match store.read(&format!("{}/{node}", path(id.domain()))) {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    };
    match read("zooid")? {
        Some(mark) => Ok(owner(&mark, id.domain()).is_some_and(|other| other != id)),
        // A toolstack has made this one.
        None => Ok(read("vm")?.is_some()),
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
