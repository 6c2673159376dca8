//! The objects that are loaded, and the steps from a file to a library in use.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::c_char;
use core::ops::Range;

use spin::Once;
use xen_abi::PAGE_SIZE;
use zooid_fork::libraries;
use zooid_kernel::at_boot;
use zooid_kernel::life::{self, Component, Order};
use zooid_kernel::mmu::libraries::{Library, OutOfMemory};
use zooid_kernel::sync::{Mutex, MutexGuard, Turns};
use zooid_loader::{
    Binding, Definition, ExportTable, Id, Namespace, Object, Refusal, Replacement, Rights, Search, Segment, Value,
    Write,
};
use zooid_manifest::Version;
use zooid_memory::PageClass;

use crate::live::{self, Live};
use crate::source::{self, File};
use crate::{Error, Flags, dlfcn, lazy, rules, runtime, tls};

/// A loaded object's identifier: its base address, which no other object has while it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub u64);

/// The resources of this pVM for an object.
struct Loaded {
    id: Id,
    /// Its name, for C.
    name: CString,
    pages: Library,
    /// Its thread-local variables.
    module: Option<u64>,
    /// The arguments of its TLS descriptors.
    #[expect(clippy::vec_box, reason = "descriptors hold their addresses")]
    indices: Vec<Box<tls::Index>>,
    /// The number of times it is open.
    open: usize,
    /// Its finalisers have been called.
    finalised: bool,
}

pub struct Loader {
    pub namespace: Namespace<File, ExportTable<'static>>,
    loaded: BTreeMap<Key, Loaded>,
    /// The image itself, if it needs objects.
    program: Option<Id>,
    /// A thread unloads objects.
    unloading: bool,
    /// Numbers of objects that have come and gone.
    pub changes: (u64, u64),
    /// The replaceable libraries, each by the key that it has for its users in all versions.
    pub live: BTreeMap<Key, Live>,
}

static LOADER: Mutex<Option<Loader>> = Mutex::new(None);

at_boot! {
    /// Starts the loader, in an image that loads objects.
    COMPONENT, "dl", start
}

/// Every object is whole in a child.
static LIFE: Component = Component { quiesce: stand_still, ..Component::PASSIVE };

fn start() {
    life::join(Order::Libraries, &LIFE);
    source::init();
}

fn lock() -> MutexGuard<'static, Option<Loader>> {
    static PRESENT: Once<()> = Once::new();
    PRESENT.call_once(|| {
        core::hint::black_box(&COMPONENT);
        lazy::init();
        dlfcn::init();
        live::init();
        tls::init();
    });
    LOADER.lock()
}

/// Calls `act` with the loaded objects.
pub fn with<R>(act: impl FnOnce(&mut Loader) -> R) -> R {
    let new = || Loader {
        namespace: Namespace::new(runtime::exports()),
        loaded: BTreeMap::new(),
        program: None,
        unloading: false,
        changes: (0, 0),
        live: BTreeMap::new(),
    };
    act(lock().get_or_insert_with(new))
}

/// Taken while objects come and go: initialisers are called with it, and may open objects
/// themselves.
pub static TURNS: Turns = Turns::new();

/// Lets a fork happen while no thread loads or unloads.
fn stand_still(fork: &mut dyn FnMut()) {
    let _turn = TURNS.take();
    let _loader = LOADER.lock();
    fork();
}

/// Octets of the heap that opening a library, or a library that it needs, takes at most; replacing
/// one takes more for each reference to it.
pub const ROOM: usize = 64 << 10;
/// Those that the search for a symbol takes.
const ROOM_OF_SEARCH: usize = 4 << 10;

/// Checks that the heap has room for a call. The call has an error for want of memory only here;
/// deeper in it that would end the pVM.
pub fn has_room(octets: usize) -> Result<(), Error> {
    Vec::<u8>::new().try_reserve_exact(octets).map_err(|_| Error::OutOfMemory)
}

/// Opens an object: loads it and its dependencies, if they are missing. Only the last part of a
/// path counts.
pub fn open(path: &str, flags: Flags) -> Result<Key, Error> {
    has_room(ROOM)?;
    let _turn = TURNS.take();
    let name = path.rsplit('/').next().unwrap_or_default();
    let binding = if flags.lazy { Binding::Lazy } else { Binding::Now };
    let result = Load::new(name).run(|load, loader| {
        let root = match loader.namespace.find(name) {
            Some(id) => id,
            None if flags.loaded => return Err(Error::NotOpen),
            None => load.add(loader, name)?,
        };
        let calls = load.link(loader, root, binding, Scope { global: flags.global, deep: flags.deep })?;
        if flags.stays {
            loader.namespace.keep(root);
        }
        let key = loader.key(root).ok_or(Error::NotOpen)?;
        loader.loaded.entry(key).and_modify(|loaded| loaded.open += 1);
        Ok((loader.lasting_key(key), calls))
    });
    match &result {
        Err(error @ (Error::Refused { .. } | Error::Forbidden { .. })) => {
            log::warn!("{error}");
            libraries::refused(&error.to_string());
        }
        // The host has reported that one.
        Err(error @ Error::Withheld(_)) => log::warn!("{error}"),
        _ => {}
    }
    result
}

/// Loads the objects that the program itself needs, with global symbols, and relocates it.
pub fn open_needed(program: Object<File>) -> Result<(), Error> {
    let _turn = TURNS.take();
    let name = rules::image();
    Load::new(name).run(|load, loader| {
        let refused = |refusal| Error::Refused { object: name.to_string(), refusal };
        let root = loader.namespace.add(name, program, 0, None).map_err(refused)?;
        loader.program = Some(root);
        Ok(((), load.link(loader, root, Binding::Now, Scope { global: true, deep: false })?))
    })
}

/// Calls a function of an object that takes no arguments, or those of a program.
fn call(function: u64) {
    // SAFETY: an initialiser or finaliser that the object names, which is relocated and mapped.
    let function = unsafe {
        core::mem::transmute::<usize, extern "C" fn(i32, *const *const u8, *const *const u8)>(function as usize)
    };
    let nothing = [core::ptr::null()];
    function(0, nothing.as_ptr(), nothing.as_ptr());
}

/// One call of [`open`], or one update.
pub struct Load<'a> {
    name: &'a str,
    /// The objects that were added by it, dependencies first once they are linked.
    new: Vec<(Id, Key)>,
}

type Call = (u64, u64, i64);

/// The searches that find an object's symbols, and its own search.
#[derive(Clone, Copy, Default)]
struct Scope {
    /// As [`Flags::global`].
    global: bool,
    /// As [`Flags::deep`].
    deep: bool,
}

impl<'a> Load<'a> {
    pub fn new(name: &'a str) -> Self {
        Self { name, new: Vec::new() }
    }

    /// Calls `link`, which runs no instruction of a new object, and then the resolvers and
    /// initialisers; all or nothing.
    pub fn run<T>(
        mut self,
        link: impl FnOnce(&mut Self, &mut Loader) -> Result<(T, Vec<Call>), Error>,
    ) -> Result<T, Error> {
        let (result, calls) = with(|loader| link(&mut self, loader).inspect_err(|_| self.undo(loader)))?;
        // Resolvers and initialisers may call functions that are looked up at the first call.
        for (address, resolver, addend) in calls {
            // SAFETY: the planner names a resolver of this object, or of one that it is bound to;
            // its pages are text now.
            let resolve = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(resolver as usize) };
            let value = resolve().wrapping_add_signed(addend);
            // SAFETY: the planner names a word of this new object that is to be relocated; it is
            // still writable.
            unsafe { (address as *mut u64).write_unaligned(value) };
        }
        let initialisers = with(|loader| self.finish(loader));
        initialisers.into_iter().for_each(call);
        Ok(result)
    }

    /// Does all steps before the first instruction of another version of a library, which the
    /// search does not find yet. Returns its own key, and the version.
    pub fn link_beside(
        &mut self,
        loader: &mut Loader,
        old: Id,
        file: File,
    ) -> Result<((Key, Version), Vec<Call>), Error> {
        let (root, version) = self.add_file(loader, self.name, file, Some(old))?;
        let calls = self.link(loader, root, Binding::Now, Scope::default())?;
        let key = loader.key(root).ok_or(Error::NotOpen)?;
        loader.loaded.entry(key).and_modify(|loaded| loaded.open += 1);
        Ok(((key, version), calls))
    }

    /// Does all steps before the first instruction of a new object.
    fn link(&mut self, loader: &mut Loader, root: Id, binding: Binding, scope: Scope) -> Result<Vec<Call>, Error> {
        while let Some(needed) = loader.namespace.missing(root).first().map(ToString::to_string) {
            self.add(loader, &needed)?;
        }
        let refused = |refusal| Error::Refused { object: self.name.to_string(), refusal };
        let order = loader.namespace.link(root, scope.global).map_err(refused)?;
        if scope.deep {
            loader.namespace.bind_deep(&order);
        }
        let (mut calls, mut indices) = (Vec::new(), Vec::new());
        loader.namespace.plan(&order, binding, |write| apply(write, &mut calls, &mut indices)).map_err(refused)?;
        live::fill(loader)?;
        for (id, index) in indices {
            if let Some(loaded) = loader.loaded.values_mut().find(|loaded| loaded.id == id) {
                loaded.indices.push(index);
            }
        }
        let place = |(id, _): &(Id, Key)| order.iter().position(|other| other == id);
        self.new.sort_by_key(place);
        for (id, key) in &self.new {
            let Some(object) = loader.namespace.object(*id) else { continue };
            let Some(loaded) = loader.loaded.get_mut(key) else { continue };
            let is_lazy = binding == Binding::Lazy && !object.flags().bind_now;
            if let Some(got) = object.plt_got().filter(|got| is_lazy && has_words(object, *got, 3)) {
                let got = (key.0.wrapping_add(got)) as *mut u64;
                // SAFETY: words of a writable segment; the second and third word of this table are
                // the loader's.
                unsafe {
                    got.add(1).write(key.0);
                    got.add(2).write(lazy::resolve as *const () as u64);
                }
            }
            for segment in object.segments() {
                let class = match segment.rights {
                    Rights::ReadExecute => PageClass::Text,
                    Rights::Read => PageClass::RoData,
                    Rights::ReadWrite => continue,
                };
                loaded.pages.set_class(pages(&loaded.pages, *key, segment.pages()), class);
            }
            loaded.module.into_iter().for_each(tls::begin);
        }
        Ok(calls)
    }

    /// Maps a library; its pages are still writable.
    fn add(&mut self, loader: &mut Loader, name: &str) -> Result<Id, Error> {
        let (id, version) = self.add_file(loader, name, source::find(name)?, None)?;
        if rules::is_live(name) {
            live::begin(loader, id, name, version).map_err(|OutOfMemory| Error::OutOfMemory)?;
        }
        Ok(id)
    }

    /// Maps a file, of a missing library or as another version `beside` a present one.
    fn add_file(
        &mut self,
        loader: &mut Loader,
        name: &str,
        file: File,
        beside: Option<Id>,
    ) -> Result<(Id, Version), Error> {
        let refused = |refusal: Refusal| Error::Refused { object: name.to_string(), refusal };
        // The file is this pVM's own memory, or the store's, which no guest writes, so the checked
        // octets are the mapped ones.
        has_room(ROOM)?;
        let version = rules::judge(name, &file)?;
        let object = Object::parse(file.clone()).map_err(refused)?;
        let span = object.span();
        let spare = object.align() as usize - PAGE_SIZE;
        let out_of_memory = |OutOfMemory| Error::OutOfMemory;
        let mut pages_of =
            Library::new(((span.end - span.start) as usize + spare) / PAGE_SIZE).map_err(out_of_memory)?;
        let base = (pages_of.start() as u64).wrapping_sub(span.start).next_multiple_of(object.align());
        for segment in object.segments() {
            let its = pages(&pages_of, Key(base), segment.pages());
            if !file.share(segment, &mut pages_of, its.clone()) {
                let from = (segment.memory.start - segment.pages().start) as usize;
                pages_of.map(its, from, &file.as_ref()[segment.file.clone()]).map_err(out_of_memory)?;
            }
        }
        let place = object.tls().map(|segment| tls::add(segment, base));
        let module = place.map(|place| place.module);
        let added = match beside {
            Some(old) => loader.namespace.add_beside(old, object, base, place),
            None => loader.namespace.add(name, object, base, place),
        };
        match added {
            Ok(id) => {
                let name = CString::new(name).unwrap_or_default();
                let indices = Vec::new();
                let loaded = Loaded { id, name, pages: pages_of, module, indices, open: 0, finalised: false };
                loader.loaded.insert(Key(base), loaded);
                loader.changes.0 += 1;
                self.new.push((id, Key(base)));
                Ok((id, version))
            }
            Err(refusal) => {
                module.into_iter().for_each(tls::remove);
                Err(refused(refusal))
            }
        }
    }

    /// Removes the right to write from pages that are constant after relocation. Returns the
    /// initialisers, in the order in which they are called.
    fn finish(&self, loader: &mut Loader) -> Vec<u64> {
        let mut initialisers = Vec::new();
        for (id, key) in &self.new {
            let Some(object) = loader.namespace.object(*id) else { continue };
            let Some(loaded) = loader.loaded.get_mut(key) else { continue };
            if let Some(relro) = object.relro().filter(|relro| !relro.is_empty()) {
                loaded.pages.set_class(pages(&loaded.pages, *key, relro), PageClass::RoData);
            }
            let (first, array) = object.init();
            initialisers.extend(first.map(|first| key.0.wrapping_add(first)));
            initialisers.extend(functions(*key, array));
        }
        initialisers
    }

    fn undo(&mut self, loader: &mut Loader) {
        for (id, _) in self.new.drain(..).rev() {
            loader.forget(id);
        }
        for live in loader.live.values() {
            live.forget_new(&mut loader.namespace);
        }
    }
}

/// The numbers of the pages with these addresses of an object.
fn pages(all: &Library, key: Key, addresses: Range<u64>) -> Range<usize> {
    let page = |address: u64| (key.0.wrapping_add(address) as usize - all.start()) / PAGE_SIZE;
    page(addresses.start)..page(addresses.end)
}

/// True if `count` words from an address on lie in a writable segment of an object.
fn has_words(object: &Object<File>, address: u64, count: u64) -> bool {
    let end = address.saturating_add(count * size_of::<u64>() as u64);
    let holds = |segment: &Segment| segment.memory.start <= address && end <= segment.memory.end;
    object.segments().iter().any(|segment| segment.rights == Rights::ReadWrite && holds(segment))
}

/// The pointers to functions in an array of a relocated object.
fn functions(key: Key, array: Range<u64>) -> impl DoubleEndedIterator<Item = u64> {
    let count = (array.end - array.start) as usize / size_of::<u64>();
    let start = key.0.wrapping_add(array.start) as *const u64;
    // SAFETY: the array lies in a segment of the object, which is mapped.
    let pointers = (0..count).map(move |place| unsafe { start.add(place).read_unaligned() });
    pointers.filter(|pointer| *pointer != 0 && *pointer != u64::MAX)
}

/// Carries out a write of a relocation. Calls are added to `calls`, and arguments to be kept for
/// the object to `indices`.
pub fn apply(write: Write, calls: &mut Vec<Call>, indices: &mut Vec<(Id, Box<tls::Index>)>) {
    let at = write.address as *mut u64;
    let words: [Option<u64>; 2] = match write.value {
        Value::Word(value) => [Some(value), None],
        Value::Lazy { stub } => [Some(stub), None],
        Value::Half(value) => {
            // SAFETY: as below.
            return unsafe { at.cast::<u32>().write_unaligned(value) };
        }
        Value::Call { resolver, addend } => return calls.push((write.address, resolver, addend)),
        Value::Descriptor { below: Some(below), offset, .. } => {
            [Some(tls::fixed as *const () as u64), Some(offset.wrapping_sub(below))]
        }
        Value::Descriptor { module, below: None, offset } => {
            let index = Box::new(tls::Index { module, offset });
            let address = &raw const *index as u64;
            indices.push((write.object, index));
            [Some(tls::on_demand as *const () as u64), Some(address)]
        }
        Value::NoDescriptor { address } => [Some(tls::undefined as *const () as u64), Some(address)],
    };
    for (place, word) in words.into_iter().flatten().enumerate() {
        // SAFETY: the planner promises that all of it lies in a writable segment of an object that
        // is being loaded, whose pages are mapped.
        unsafe { at.add(place).write_unaligned(word) };
    }
}

impl Loader {
    fn forget(&mut self, id: Id) {
        let key = self.key(id);
        self.namespace.remove(id);
        self.live.retain(|_, live| live.id != id);
        if let Some(loaded) = key.and_then(|key| self.loaded.remove(&key)) {
            loaded.module.into_iter().for_each(tls::remove);
            self.changes.1 += 1;
        }
    }

    /// An object's name, for C. It stays while the object is loaded.
    pub fn file_name(&self, id: Id) -> Option<*const c_char> {
        self.loaded(id).map(|loaded| loaded.name.as_ptr())
    }

    /// The number of the module of its thread-local variables; 0 if it has none.
    pub fn module(&self, id: Id) -> usize {
        self.loaded(id).and_then(|loaded| loaded.module).unwrap_or(0) as usize
    }

    /// The objects that are neither open nor needed, users first.
    fn unused(&self) -> Vec<Id> {
        let open = self.loaded.values().filter(|loaded| loaded.open > 0).map(|loaded| loaded.id);
        let open: Vec<Id> = open.chain(self.program).collect();
        self.namespace.unused(&open)
    }

    /// The finalisers of these objects, of each object once.
    fn finalisers(&mut self, objects: &[Id]) -> Vec<u64> {
        let mut all = Vec::new();
        for id in objects {
            let Some((key, object)) = self.key(*id).zip(self.namespace.object(*id)) else { continue };
            let (array, last) = object.fini();
            let last = last.map(|last| key.0.wrapping_add(last));
            if let Some(loaded) = self.loaded.get_mut(&key).filter(|loaded| !loaded.finalised) {
                loaded.finalised = true;
                all.extend(functions(key, array).rev().chain(last));
            }
        }
        all
    }

    pub fn key(&self, id: Id) -> Option<Key> {
        self.loaded.iter().find(|(_, loaded)| loaded.id == id).map(|(key, _)| *key)
    }

    /// The key of an object for its users, which stays the same when the object is replaced.
    fn lasting_key(&self, key: Key) -> Key {
        let id = self.id(key);
        self.live.iter().find(|(_, live)| Some(live.id) == id).map_or(key, |(lasting, _)| *lasting)
    }

    /// The object with a key, lasting or not.
    pub fn id(&self, key: Key) -> Option<Id> {
        self.live.get(&key).map(|live| live.id).or_else(|| self.loaded.get(&key).map(|loaded| loaded.id))
    }

    fn loaded(&self, id: Id) -> Option<&Loaded> {
        self.loaded.values().find(|loaded| loaded.id == id)
    }

    fn loaded_mut(&mut self, id: Id) -> Option<&mut Loaded> {
        self.loaded.values_mut().find(|loaded| loaded.id == id)
    }

    /// Sets the number of times an object is open.
    pub fn set_open(&mut self, key: Key, open: usize) {
        self.loaded.entry(key).and_modify(|loaded| loaded.open = open);
    }

    /// The changes that make all users of `old` use `new`.
    pub fn replacement(&self, old: Id, new: Id) -> Result<Replacement, Error> {
        let name = || self.namespace.name(old).unwrap_or_default().to_string();
        self.namespace.replacement(old, new).map_err(|refusal| Error::Refused { object: name(), refusal })
    }

    /// The pages to be written that are constant after relocation: object and number of each,
    /// sorted by object.
    fn constant_pages(&self, writes: &[Write]) -> Vec<(Key, usize)> {
        let page = |write: &Write| {
            let key = self.key(write.object)?;
            let relro = self.namespace.object(write.object)?.relro()?;
            let address = write.address.wrapping_sub(key.0);
            let loaded = self.loaded.get(&key)?;
            relro.contains(&address).then(|| (key, pages(&loaded.pages, key, address..address).start))
        };
        let mut all: Vec<_> = writes.iter().filter_map(page).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Makes these words writable; all or nothing.
    pub fn unseal(&mut self, writes: &[Write]) -> Result<(), Error> {
        for (key, page) in self.constant_pages(writes) {
            let Some(loaded) = self.loaded.get_mut(&key) else { continue };
            if loaded.pages.make_writable(page..page + 1).is_err() {
                self.seal(writes);
                return Err(Error::OutOfMemory);
            }
        }
        Ok(())
    }

    /// Removes the right to write from them again.
    pub fn seal(&mut self, writes: &[Write]) {
        for (key, page) in self.constant_pages(writes) {
            if let Some(loaded) = self.loaded.get_mut(&key) {
                loaded.pages.set_class(page..page + 1, PageClass::RoData);
            }
        }
    }

    /// Puts an object in the place of another, which is then no longer open.
    pub fn exchange(&mut self, old: Id, new: Id) {
        let open = self.loaded_mut(old).map_or(0, |loaded| core::mem::take(&mut loaded.open));
        for loaded in self.loaded.values_mut() {
            if loaded.id == old {
                loaded.id = new;
            } else if loaded.id == new {
                (loaded.id, loaded.open) = (old, open);
            }
        }
        self.namespace.exchange(old, new);
    }
}

/// Closes an object once, and unloads the unused ones, finalisers first.
pub fn close(key: Key) {
    let _turn = TURNS.take();
    with(|loader| {
        let id = loader.id(key);
        if let Some(loaded) = id.and_then(|id| loader.loaded_mut(id)) {
            loaded.open = loaded.open.saturating_sub(1);
        }
    });
    unload_unused();
}

/// Unloads the unused objects, finalisers first. The caller has the turn.
///
/// A finaliser may open and close objects. These calls change counts only; the outermost call looks
/// again when the finalisers have returned. An object that one of them has opened stays.
pub fn unload_unused() {
    if with(|loader| core::mem::replace(&mut loader.unloading, true)) {
        return;
    }
    loop {
        let due = with(|loader| {
            let unused = loader.unused();
            let due = loader.finalisers(&unused);
            if due.is_empty() {
                unused.into_iter().for_each(|id| loader.forget(id));
                loader.unloading = false;
            }
            due
        });
        if due.is_empty() {
            return;
        }
        due.into_iter().for_each(call);
    }
}

/// Calls the finalisers of all objects at the end of an application, those of the users of an object
/// before its own.
pub fn finalise_all() {
    let _turn = TURNS.take();
    let due = with(|loader| {
        let all = loader.namespace.finalisation(loader.program.as_slice());
        loader.finalisers(&all)
    });
    due.into_iter().for_each(call);
}

/// True if an object is open.
pub fn is_open(key: Key) -> bool {
    with(|loader| {
        let id = loader.id(key);
        id.and_then(|id| loader.loaded_mut(id)).is_some_and(|loaded| loaded.open > 0)
    })
}

/// The objects in which a symbol is looked for.
#[derive(Clone, Copy)]
pub enum Place {
    /// All that is global.
    Global,
    /// An object and its dependencies.
    Library(Key),
    /// The objects behind the one that has this address, and the image's stand-ins.
    Behind(u64),
}

/// The address of a symbol, of this version or of the default one.
pub fn symbol(place: Place, name: &str, version: Option<&str>) -> Result<*const (), Error> {
    has_room(ROOM_OF_SEARCH)?;
    let none = || Error::NoSymbol(name.to_string());
    let found = with(|loader| {
        let (search, own) = match place {
            Place::Global => (Search::Global, None),
            Place::Library(key) => {
                let id = loader.id(key).ok_or_else(none)?;
                // A caller with an object's own key, as `migrate` has of both versions, wants the
                // object's own functions.
                (Search::Tree(id), loader.loaded.contains_key(&key).then_some(id))
            }
            Place::Behind(address) => (Search::Behind(loader.namespace.holder(address).ok_or_else(none)?), None),
        };
        let refused = |refusal| Error::Refused { object: name.to_string(), refusal };
        let found = loader.namespace.lasting_symbol(search, (name, version), own).map_err(refused)?.ok_or_else(none)?;
        live::fill(loader)?;
        Ok(found)
    })?;
    let address = match found.definition {
        Definition::Address(address) => address,
        Definition::ThreadLocal { module, offset } => tls::address(module, offset),
        Definition::Resolver(resolver) => {
            // SAFETY: a resolver of an object that is loaded.
            let resolve = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(resolver as usize) };
            resolve()
        }
    };
    Ok(address as *const ())
}

/// The address of the function behind entry `number` of an object's PLT, which it calls for the
/// first time.
pub fn bind(key: Key, number: usize) -> Result<u64, Error> {
    let (address, value) = with(|loader| {
        let id = loader.loaded.get(&key).ok_or(Error::NotOpen)?.id;
        let write = loader.namespace.bind(id, number).map_err(|refusal| Error::Refused {
            object: loader.namespace.name(id).unwrap_or_default().to_string(),
            refusal,
        })?;
        live::fill(loader)?;
        Ok((write.address, write.value))
    })?;
    let value = match value {
        Value::Word(value) => value,
        Value::Call { resolver, addend } => {
            // SAFETY: a resolver of an object that is loaded.
            let resolve = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(resolver as usize) };
            resolve().wrapping_add_signed(addend)
        }
        _ => return Err(Error::NotOpen),
    };
    // SAFETY: the planner promises that the word is in a writable segment of the object.
    unsafe { (address as *mut u64).write(value) };
    Ok(value)
}

/// All objects, in the order in which they were loaded.
pub fn objects() -> Vec<crate::Object> {
    with(|loader| {
        let describe = |id: Id| {
            let name = String::from(loader.namespace.name(id)?);
            let key = loader.key(id)?;
            Some(crate::Object { name, base: key.0 as usize, range: loader.loaded.get(&key)?.pages.range() })
        };
        loader.namespace.objects().filter_map(describe).collect()
    })
}
