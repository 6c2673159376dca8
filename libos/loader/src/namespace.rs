//! The loaded objects and their dependencies.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::exports::Exports;
use crate::live::Live;
use crate::object::{Object, text};
use crate::order;
use crate::refusal::Refusal;
use crate::scope::{Bound, Found, Holder, Member, Scope};
use crate::symbol::{Key, Wanted};

/// An object's number from [`Namespace::add`] to [`Namespace::remove`]; it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

/// The objects in which a name is looked for at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The image, and the objects with global symbols (RTLD_DEFAULT).
    Global,
    /// An object and its dependencies.
    Tree(Id),
    /// The objects behind this one in the tree through which it was loaded, and then the image
    /// (RTLD_NEXT).
    Behind(Id),
}

/// The place of an object's thread-local variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPlace {
    /// The module number of the object, for `__tls_get_addr`.
    pub module: u64,
    /// The distance from the thread pointer down to the beginning of the block, the same in every
    /// thread; `None` if threads get it on demand. [`TlsSegment::below`](crate::TlsSegment::below)
    /// finds a distance.
    pub below: Option<u64>,
}

/// The objects of one image. It holds no memory of theirs, and does not count how often one was
/// opened.
///
/// The steps to load an object: [`add`](Self::add) it; `add` the [`missing`](Self::missing)
/// libraries until there are none; [`link`](Self::link) it; [`plan`](Self::plan) the objects that
/// `link` returned, and write; protect GNU_RELRO; call the initialisers in the order that `link`
/// returned. If a step fails, [`remove`](Self::remove) takes back the added objects.
#[derive(Debug)]
pub struct Namespace<B, E> {
    pub(crate) objects: BTreeMap<Id, Loaded<B>>,
    next: u64,
    /// The objects with global symbols, in the order of the search.
    global: Vec<Id>,
    exports: E,
    pub(crate) live: Live,
}

#[derive(Debug)]
pub(crate) struct Loaded<B> {
    name: String,
    pub object: Object<B>,
    base: u64,
    tls: Option<TlsPlace>,
    /// The object whose other version it is, and whose place it is to take, or had.
    pub beside: Option<Id>,
    /// Direct dependencies that are objects; complete when linked.
    pub needed: Vec<Id>,
    /// The whole tree of an object that was opened itself, in the order in which it would be
    /// finalised alone. The place where a cycle is cut depends on it.
    pub sorted: Vec<Id>,
    linked: bool,
    /// It is not unloaded.
    stays: bool,
    /// Its references are looked for in the trees through which it was loaded before all others.
    deep: bool,
    /// The objects through which it was loaded. Its symbols are looked for in their trees.
    pub roots: Vec<Id>,
    /// The objects outside of its dependencies that its references are bound to.
    pub bound_to: Vec<Id>,
}

impl<B: AsRef<[u8]>, E: Exports> Namespace<B, E> {
    /// A namespace without objects, in which these are there already.
    pub fn new(exports: E) -> Self {
        Self { objects: BTreeMap::new(), next: 0, global: Vec::new(), exports, live: Live::new() }
    }

    /// Adds an object. `base` is added to all of its addresses; `tls` is the place of its
    /// thread-local variables, if it has any ([`Object::tls`]). The search does not find its
    /// symbols before it is linked.
    pub fn add(&mut self, name: &str, object: Object<B>, base: u64, tls: Option<TlsPlace>) -> Result<Id, Refusal> {
        let named = || name.to_string();
        let span = object.span();
        let (Some(start), Some(end)) = (base.checked_add(span.start), base.checked_add(span.end)) else {
            return Err(Refusal::Base { object: named(), base });
        };
        if !base.is_multiple_of(object.align()) {
            return Err(Refusal::Base { object: named(), base });
        }
        if object.tls().is_some() && tls.is_none() {
            return Err(Refusal::NoModule { object: named() });
        }
        for other in self.objects.values() {
            let span = other.object.span();
            if start < other.base + span.end && other.base + span.start < end {
                return Err(Refusal::Occupied { object: named(), base, other: other.name.clone() });
            }
        }
        let id = Id(self.next);
        self.next += 1;
        let (needed, sorted, roots, bound_to) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (name, beside, linked) = (named(), None, false);
        let (stays, deep) = (object.flags().no_delete, false);
        let loaded = Loaded { name, object, base, tls, beside, needed, sorted, linked, stays, deep, roots, bound_to };
        self.objects.insert(id, loaded);
        Ok(id)
    }

    /// The object with this name: the name that it was added under, or its own.
    pub fn find(&self, name: &str) -> Option<Id> {
        let mut objects = self.objects.iter().filter(|(_, loaded)| loaded.beside.is_none());
        objects.find(|(_, loaded)| loaded.name == name || loaded.object.soname() == Some(name)).map(|(id, _)| *id)
    }

    /// The object itself, while it is there.
    pub fn object(&self, id: Id) -> Option<&Object<B>> {
        self.objects.get(&id).map(|loaded| &loaded.object)
    }

    /// The base that is added to its addresses.
    pub fn base(&self, id: Id) -> Option<u64> {
        self.objects.get(&id).map(|loaded| loaded.base)
    }

    /// The name that it was added under.
    pub fn name(&self, id: Id) -> Option<&str> {
        self.objects.get(&id).map(|loaded| loaded.name.as_str())
    }

    /// All objects, in the order in which they were added.
    pub fn objects(&self) -> impl Iterator<Item = Id> {
        self.objects.keys().copied()
    }

    /// The libraries that are needed, directly or not, but were not added and are not among the
    /// exports.
    pub fn missing(&self, root: Id) -> Vec<&str> {
        let mut missing = Vec::new();
        for id in self.tree_by(root, |id| self.present(id)) {
            for name in self.objects[&id].object.needed() {
                if self.find(name).is_none() && !self.exports.provides(name) && !missing.contains(&name) {
                    missing.push(name);
                }
            }
        }
        missing
    }

    /// Connects an object with the objects that it needs, all of which were added, and opens their
    /// symbols to each other, and to all objects if `global`. Returns the new objects in the order
    /// in which they are to be relocated and initialised: dependencies first.
    pub fn link(&mut self, root: Id, global: bool) -> Result<Vec<Id>, Refusal> {
        if !self.objects.contains_key(&root) {
            return Err(Refusal::Stale);
        }
        let tree = self.tree_by(root, |id| self.present(id));
        let new: Vec<Id> = tree.iter().copied().filter(|id| !self.objects[id].linked).collect();
        for id in &new {
            self.check_needs(*id)?;
        }
        for id in &new {
            let needed = self.present(*id);
            self.objects.entry(*id).and_modify(|loaded| (loaded.needed, loaded.linked) = (needed, true));
        }
        let root_loaded = &self.objects[&root];
        let global = (global || root_loaded.object.flags().global) && root_loaded.beside.is_none();
        for id in &tree {
            let Some(loaded) = self.objects.get_mut(id) else { continue };
            if !loaded.roots.contains(&root) {
                loaded.roots.push(root);
            }
            if global && !self.global.contains(id) {
                self.global.push(*id);
            }
        }
        let mut order = order::initialisation(&tree, |id| self.sorted(id).to_vec());
        if let Some(loaded) = self.objects.get_mut(&root).filter(|loaded| loaded.sorted.is_empty()) {
            loaded.sorted = order.iter().rev().copied().collect();
        }
        order.retain(|id| new.contains(id));
        Ok(order)
    }

    /// Keeps an object loaded from now on, as if it asked for that itself (RTLD_NODELETE).
    pub fn keep(&mut self, id: Id) {
        self.objects.entry(id).and_modify(|loaded| loaded.stays = true);
    }

    /// Has the references of objects that are about to be [planned](Self::plan) looked for in the
    /// trees through which they were loaded first (RTLD_DEEPBIND).
    pub fn bind_deep(&mut self, objects: &[Id]) {
        for id in objects {
            self.objects.entry(*id).and_modify(|loaded| loaded.deep = true);
        }
    }

    /// An object and its dependencies, breadth first: the objects where `dlsym` looks for a symbol
    /// of it.
    pub fn tree(&self, root: Id) -> Vec<Id> {
        self.tree_by(root, |id| self.objects.get(&id).map_or(Vec::new(), |loaded| loaded.needed.clone()))
    }

    /// The definition of a name that `dlsym` (with a version, `dlvsym`) finds: for an object in its
    /// tree, else in the global scope.
    pub fn symbol(&self, handle: Option<Id>, name: &str, version: Option<&str>) -> Option<Found> {
        let wanted = Wanted::at_run_time(version);
        self.find_symbol(handle.map_or(Search::Global, Search::Tree), name, wanted)?.found()
    }

    pub(crate) fn find_symbol(&self, search: Search, name: &str, wanted: Wanted) -> Option<Bound<'_>> {
        let in_tree = |id| {
            let root = self.objects.get(&id).and_then(|loaded| loaded.roots.first()).copied().unwrap_or(id);
            self.tree(root).into_iter().skip_while(move |next| *next != id).skip(1).collect()
        };
        let (ids, exports_last) = match search {
            Search::Global => (self.global.clone(), false),
            Search::Tree(root) => (self.tree(root), true),
            Search::Behind(id) => (in_tree(id), true),
        };
        let members: Vec<_> = ids.into_iter().filter_map(|id| self.member(id)).collect();
        let before = if exports_last { members.len() } else { 0 };
        Scope { exports: (&self.exports, before), members, all: self.all() }.find(&Key::new(name.as_bytes()), wanted)
    }

    /// All objects, as far as they are not other versions of one.
    fn all(&self) -> Vec<Member<'_>> {
        let all = self.objects.iter().filter(|(_, loaded)| loaded.beside.is_none());
        all.filter_map(|(id, _)| self.member(*id)).collect()
    }

    /// The object that an address belongs to.
    pub fn holder(&self, address: u64) -> Option<Id> {
        let holds =
            |loaded: &Loaded<B>| address.checked_sub(loaded.base).is_some_and(|address| loaded.object.holds(address));
        self.objects.iter().find(|(_, loaded)| holds(loaded)).map(|(id, _)| *id)
    }

    /// As [`holder`](Self::holder), with its symbol if there is one.
    pub fn address(&self, address: u64) -> Option<Holder<'_>> {
        let id = self.holder(address)?;
        let loaded = self.objects.get(&id)?;
        let view = loaded.object.view();
        let symbol = view
            .covering(address - loaded.base)
            .map(|(_, symbol)| (text(view.name(&symbol)), loaded.base.wrapping_add(symbol.st_value)));
        Some(Holder { object: id, base: loaded.base, symbol })
    }

    /// The linked objects that can be unloaded while those in `open` are open: no object needs them
    /// or is bound to them, and they do not ask to stay. They are in the order in which they are to
    /// be finalised: dependencies last.
    pub fn unused(&self, open: &[Id]) -> Vec<Id> {
        let mut used: Vec<Id> = open.to_vec();
        used.extend(self.objects.iter().filter(|(_, loaded)| loaded.stays).map(|(id, _)| *id));
        let mut next = 0;
        while let Some(id) = used.get(next) {
            let mut more = self.dependencies(*id);
            more.retain(|id| !used.contains(id));
            used.extend(more);
            next += 1;
        }
        self.finalisation(&used)
    }

    /// The objects whose initialisers have run, without those that are `kept`, in the order in which
    /// their finalisers are to be called: the users of an object before the object.
    pub fn finalisation(&self, kept: &[Id]) -> Vec<Id> {
        let ends: Vec<Id> =
            self.objects.iter().filter(|(id, loaded)| loaded.linked && !kept.contains(id)).map(|(id, _)| *id).collect();
        let order = order::finalisation(&ends, |id| self.dependencies(id));
        // A binding to an object counts less than a dependency.
        match self.objects.values().any(|loaded| !loaded.bound_to.is_empty()) {
            true => order::finalisation(&order, |id| self.sorted(id).to_vec()),
            false => order,
        }
    }

    /// Removes an object. The others are as before it was added, except for those that are bound to
    /// it.
    pub fn remove(&mut self, id: Id) -> Option<Object<B>> {
        let removed = self.objects.remove(&id)?;
        self.global.retain(|other| *other != id);
        self.live.remove(&id);
        for loaded in self.objects.values_mut() {
            for list in [&mut loaded.needed, &mut loaded.sorted, &mut loaded.roots, &mut loaded.bound_to] {
                list.retain(|other| *other != id);
            }
        }
        Some(removed.object)
    }

    pub(crate) fn loaded(&mut self, id: Id) -> Option<&mut Loaded<B>> {
        self.objects.get_mut(&id)
    }

    pub(crate) fn member(&self, id: Id) -> Option<Member<'_>> {
        let loaded = self.objects.get(&id)?;
        let (base, tls, view) = (loaded.base, loaded.tls, loaded.object.view());
        Some(Member { id, name: &loaded.name, base, tls, beside: loaded.beside, view })
    }

    /// The places where the references of an object are looked for: the object itself, if it says
    /// so, and the trees through which it was loaded, if they come first; the exports; the global
    /// scope; these trees.
    pub(crate) fn scope(&self, id: Id) -> Option<Scope<'_, E>> {
        let loaded = self.objects.get(&id)?;
        // Its own tree comes last, for the case that all objects through which it was loaded have
        // gone and something else keeps it.
        let trees: Vec<Id> = loaded.roots.iter().chain([&id]).flat_map(|root| self.tree(*root)).collect();
        // An object that is to take another's place finds its own symbols there; no other object
        // finds them.
        let own = |next: &Id| if Some(*next) == loaded.beside { id } else { *next };
        let symbolic = loaded.object.flags().symbolic.then_some(id);
        let first: Vec<Id> = symbolic.into_iter().chain(trees.iter().filter(|_| loaded.deep).map(own)).collect();
        let mut order: Vec<Id> = Vec::new();
        for next in first.iter().copied().chain(self.global.iter().chain(&trees).map(own)) {
            if !order.contains(&next) {
                order.push(next);
            }
        }
        let before = order.iter().take_while(|id| first.contains(id)).count();
        let members = order.into_iter().filter_map(|id| self.member(id)).collect();
        Some(Scope { exports: (&self.exports, before), members, all: self.all() })
    }

    /// The direct dependencies that were added, linked or not.
    fn present(&self, id: Id) -> Vec<Id> {
        let needed = self.objects.get(&id).into_iter().flat_map(|loaded| loaded.object.needed());
        needed.filter_map(|name| self.find(name)).collect()
    }

    /// The dependencies of an object, in the order in which glibc comes to them when it sorts
    /// (`l_initfini`).
    fn sorted(&self, id: Id) -> &[Id] {
        match self.objects.get(&id) {
            None => &[],
            Some(loaded) if loaded.sorted.is_empty() => &loaded.needed,
            Some(loaded) => &loaded.sorted,
        }
    }

    /// Records the objects that an object is bound to, and keeps those whose unique symbols it uses.
    pub(crate) fn note(&mut self, id: Id, (bound_to, unique): (Vec<Id>, Vec<Id>)) {
        let known = self.objects.get(&id).map_or(&[][..], |loaded| &loaded.bound_to);
        let is_new = |bound: &Id| !self.sorted(id).contains(bound) && !known.contains(bound);
        let new: Vec<Id> = bound_to.into_iter().filter(is_new).collect();
        self.objects.entry(id).and_modify(|loaded| loaded.bound_to.extend(new));
        unique.into_iter().for_each(|id| self.keep(id));
    }

    /// The objects that an object cannot be without.
    fn dependencies(&self, id: Id) -> Vec<Id> {
        let bound_to = self.objects.get(&id).into_iter().flat_map(|loaded| loaded.bound_to.iter().rev());
        self.sorted(id).iter().chain(bound_to).copied().collect()
    }

    fn tree_by(&self, root: Id, needed: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
        let mut tree: Vec<Id> = self.objects.contains_key(&root).then_some(root).into_iter().collect();
        let mut next = 0;
        while let Some(id) = tree.get(next) {
            for id in needed(*id) {
                if !tree.contains(&id) {
                    tree.push(id);
                }
            }
            next += 1;
        }
        tree
    }

    /// Checks that every needed library is present and has the needed versions.
    fn check_needs(&self, id: Id) -> Result<(), Refusal> {
        let loaded = &self.objects[&id];
        let missing = |name: &&str| self.find(name).is_none() && !self.exports.provides(name);
        if let Some(needed) = loaded.object.needed().find(missing) {
            return Err(Refusal::MissingObject { object: loaded.name.clone(), needed: needed.to_string() });
        }
        let view = loaded.object.view();
        for (file, version) in view.info.versions.needed() {
            let provider = text(view.string_at(file));
            let name = view.string_at(version.name);
            let Some(provided) = self.find(provider).and_then(|id| self.object(id)) else { continue };
            // A library without versions serves every reference.
            let unversioned = provided.view().info.versions.defined().next().is_none();
            if !unversioned && !version.weak && !provided.view().defines_version(version.hash, name) {
                return Err(Refusal::MissingVersion {
                    object: loaded.name.clone(),
                    version: text(name).to_string(),
                    provider: provider.to_string(),
                });
            }
        }
        Ok(())
    }
}
