//! The objects that are loaded, and the steps from a file to a library in use.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use spin::Once;
use xen_abi::PAGE_SIZE;
use zooid_fork::libraries;
use zooid_kernel::events::Masked;
use zooid_kernel::mmu::libraries::{Library, OutOfMemory};
use zooid_kernel::sync::{Mutex, MutexGuard};
use zooid_kernel::{life, thread};
use zooid_loader::{Binding, Definition, ExportTable, Id, Namespace, Object, Refusal, Rights, Segment, Value, Write};
use zooid_memory::PageClass;

use crate::source::{self, File};
use crate::{Error, Flags, lazy, rules, runtime, tls};

/// Names a loaded object for the rest of its life: its base address, at which nothing else is so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub u64);

/// What this pVM has of an object.
struct Loaded {
    id: Id,
    pages: Library,
    /// Its thread-local variables.
    module: Option<u64>,
    /// What descriptors of it lead to.
    #[expect(clippy::vec_box, reason = "descriptors hold their addresses")]
    indices: Vec<Box<tls::Index>>,
    /// How often it is open.
    open: usize,
}

pub struct Loader {
    pub namespace: Namespace<File, ExportTable<'static>>,
    loaded: BTreeMap<Key, Loaded>,
}

static LOADER: Mutex<Option<Loader>> = Mutex::new(None);

/// Boot calls this function in an image that loads objects.
// SAFETY: the section is an array of `fn()`, as `zooid_kernel::boot` expects.
#[unsafe(link_section = ".zooid.init")]
static BRICK: fn() = source::init;

fn lock() -> MutexGuard<'static, Option<Loader>> {
    static PRESENT: Once<()> = Once::new();
    PRESENT.call_once(|| {
        core::hint::black_box(&BRICK);
        life::on_fork(stand_still);
    });
    LOADER.lock()
}

/// Calls `act` with what is loaded.
pub fn with<R>(act: impl FnOnce(&mut Loader) -> R) -> R {
    let new = || Loader { namespace: Namespace::new(runtime::exports()), loaded: BTreeMap::new() };
    act(lock().get_or_insert_with(new))
}

/// Held while objects come and go: initialisers are called with it, and may open objects themselves.
struct Turn(Option<MutexGuard<'static, ()>>);

static TURN: Mutex<()> = Mutex::new(());
static WHOSE: Masked<Option<thread::ThreadId>> = Masked::new(None);

impl Turn {
    fn take() -> Self {
        let me = thread::current();
        if *WHOSE.lock() == Some(me) {
            return Self(None);
        }
        let guard = TURN.lock();
        *WHOSE.lock() = Some(me);
        Self(Some(guard))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.is_some() {
            *WHOSE.lock() = None;
        }
    }
}

/// Lets a fork happen while no thread loads or unloads, so that every object is whole in the child.
fn stand_still(fork: &mut dyn FnMut()) {
    let _turn = Turn::take();
    let _loader = LOADER.lock();
    fork();
}

/// Opens an object: loads it and what it needs, if they are not there. Of a path, the last part counts.
pub fn open(path: &str, flags: Flags) -> Result<Key, Error> {
    let _turn = Turn::take();
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut load = Load { name, new: Vec::new() };
    let binding = if flags.lazy { Binding::Lazy } else { Binding::Now };
    let result = with(|loader| load.link(loader, binding, flags.global));
    let (key, calls) = match result {
        Ok(linked) => linked,
        Err(error) => {
            with(|loader| load.undo(loader));
            match error {
                Error::Refused { .. } | Error::Forbidden { .. } => {
                    log::warn!("{error}");
                    libraries::refused(&error.to_string());
                }
                // That is known there.
                Error::Withheld(_) => log::warn!("{error}"),
                _ => {}
            }
            return Err(error);
        }
    };
    // Resolvers and initialisers may call what is looked up at the first call.
    for (address, resolver, addend) in calls {
        // SAFETY: the planner says that a resolver of this object, or of one that it is bound to, is there: it is text now.
        let resolve = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(resolver as usize) };
        let value = resolve().wrapping_add_signed(addend);
        // SAFETY: the planner says that a word of this new object's is to be relocated there; it is writable still.
        unsafe { (address as *mut u64).write_unaligned(value) };
    }
    let initialisers = with(|loader| load.finish(loader));
    initialisers.into_iter().for_each(call);
    Ok(key)
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

/// One call of [`open`].
struct Load<'a> {
    name: &'a str,
    /// The objects that came with it, dependencies first when it is linked.
    new: Vec<(Id, Key)>,
}

type Call = (u64, u64, i64);

impl Load<'_> {
    /// Everything up to the first instruction of a new object.
    fn link(&mut self, loader: &mut Loader, binding: Binding, global: bool) -> Result<(Key, Vec<Call>), Error> {
        let root = match loader.namespace.find(self.name) {
            Some(id) => id,
            None => self.add(loader, self.name)?,
        };
        while let Some(needed) = loader.namespace.missing(root).first().map(ToString::to_string) {
            self.add(loader, &needed)?;
        }
        let refused = |refusal| Error::Refused { object: self.name.to_string(), refusal };
        let order = loader.namespace.link(root, global).map_err(refused)?;
        let (mut calls, mut indices) = (Vec::new(), Vec::new());
        loader.namespace.plan(&order, binding, |write| apply(write, &mut calls, &mut indices)).map_err(refused)?;
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
                // SAFETY: words of a writable segment; the second and third word of this table are the loader's.
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
        let key =
            *loader.loaded.iter().find(|(_, loaded)| loaded.id == root).map(|(key, _)| key).ok_or(Error::NotOpen)?;
        loader.loaded.entry(key).and_modify(|loaded| loaded.open += 1);
        Ok((key, calls))
    }

    /// Maps the file of a library; its pages are writable still.
    fn add(&mut self, loader: &mut Loader, name: &str) -> Result<Id, Error> {
        let refused = |refusal: Refusal| Error::Refused { object: name.to_string(), refusal };
        let file = source::find(name)?;
        // The file is this pVM's own memory, or the store's, which nobody writes: what is judged is what is mapped.
        rules::judge(name, &file).map_err(|rule| Error::Forbidden { object: name.to_string(), rule })?;
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
                pages_of.map(its).map_err(out_of_memory)?;
                copy(segment, file.as_ref(), base);
            }
        }
        let place = object.tls().map(|segment| tls::add(segment, base));
        let module = place.map(|place| place.module);
        match loader.namespace.add(name, object, base, place) {
            Ok(id) => {
                let loaded = Loaded { id, pages: pages_of, module, indices: Vec::new(), open: 0 };
                loader.loaded.insert(Key(base), loaded);
                self.new.push((id, Key(base)));
                Ok(id)
            }
            Err(refusal) => {
                module.into_iter().for_each(tls::remove);
                Err(refused(refusal))
            }
        }
    }

    /// Takes the right to write from what is constant once it is relocated; the initialisers, in the order in which they are called.
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
        for (id, key) in self.new.drain(..).rev() {
            loader.forget(id, key);
        }
    }
}

/// Which of its pages have these addresses of an object.
fn pages(all: &Library, key: Key, addresses: Range<u64>) -> Range<usize> {
    let page = |address: u64| (key.0.wrapping_add(address) as usize - all.start()) / PAGE_SIZE;
    page(addresses.start)..page(addresses.end)
}

/// Whether so many words from an address on lie in a writable segment of an object.
fn has_words(object: &Object<File>, address: u64, count: u64) -> bool {
    let end = address.saturating_add(count * size_of::<u64>() as u64);
    let holds = |segment: &Segment| segment.memory.start <= address && end <= segment.memory.end;
    object.segments().iter().any(|segment| segment.rights == Rights::ReadWrite && holds(segment))
}

fn copy(segment: &Segment, file: &[u8], base: u64) {
    let content = &file[segment.file.clone()];
    let target = base.wrapping_add(segment.memory.start) as *mut u8;
    // SAFETY: the segment's pages are mapped, writable and nobody else's, and its memory is at least as long as its content.
    unsafe { core::ptr::copy_nonoverlapping(content.as_ptr(), target, content.len()) };
}

/// The pointers to functions in an array of an object that is relocated.
fn functions(key: Key, array: Range<u64>) -> impl DoubleEndedIterator<Item = u64> {
    let count = (array.end - array.start) as usize / size_of::<u64>();
    let start = key.0.wrapping_add(array.start) as *const u64;
    // SAFETY: the array lies in a segment of the object, which is mapped.
    let pointers = (0..count).map(move |place| unsafe { start.add(place).read_unaligned() });
    pointers.filter(|pointer| *pointer != 0 && *pointer != u64::MAX)
}

/// Writes what a relocation asks for; what is to be called is left to be called, and what is to be kept for the object is left to be kept.
fn apply(write: Write, calls: &mut Vec<Call>, indices: &mut Vec<(Id, Box<tls::Index>)>) {
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
        // SAFETY: the planner says that all of it lies in a writable segment of an object that is being loaded, whose pages are mapped.
        unsafe { at.add(place).write_unaligned(word) };
    }
}

impl Loader {
    fn forget(&mut self, id: Id, key: Key) {
        self.namespace.remove(id);
        if let Some(loaded) = self.loaded.remove(&key) {
            loaded.module.into_iter().for_each(tls::remove);
        }
    }

    fn key(&self, id: Id) -> Option<Key> {
        self.loaded.iter().find(|(_, loaded)| loaded.id == id).map(|(key, _)| *key)
    }
}

/// Closes an object once; unloads what nobody uses any more, finalisers first.
pub fn close(key: Key) {
    let _turn = Turn::take();
    let unused: Vec<(Id, Key, Vec<u64>)> = with(|loader| {
        loader.loaded.entry(key).and_modify(|loaded| loaded.open = loaded.open.saturating_sub(1));
        let open: Vec<Id> = loader.loaded.values().filter(|loaded| loaded.open > 0).map(|loaded| loaded.id).collect();
        let unused = loader.namespace.unused(&open);
        let finalisers = |id: Id| {
            let key = loader.key(id)?;
            let (array, last) = loader.namespace.object(id)?.fini();
            let last = last.map(|last| key.0.wrapping_add(last));
            Some((id, key, functions(key, array).rev().chain(last).collect()))
        };
        unused.into_iter().filter_map(finalisers).collect()
    });
    unused.iter().flat_map(|(_, _, finalisers)| finalisers).copied().for_each(call);
    with(|loader| unused.into_iter().for_each(|(id, key, _)| loader.forget(id, key)));
}

/// Whether an object is open.
pub fn is_open(key: Key) -> bool {
    with(|loader| loader.loaded.get(&key).is_some_and(|loaded| loaded.open > 0))
}

/// Where a symbol is: of an object and what it needs, or of all that is global.
pub fn symbol(key: Option<Key>, name: &str) -> Result<*const (), Error> {
    let found = with(|loader| {
        let id = match key {
            Some(key) => Some(loader.loaded.get(&key)?.id),
            None => None,
        };
        loader.namespace.symbol(id, name, None)
    });
    let address = match found.ok_or_else(|| Error::NoSymbol(name.to_string()))?.definition {
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

/// The address of the function behind entry `number` of an object's PLT, which it calls for the first time.
pub fn bind(key: Key, number: usize) -> Result<u64, Error> {
    let (address, value) = with(|loader| {
        let id = loader.loaded.get(&key).ok_or(Error::NotOpen)?.id;
        let write = loader.namespace.bind(id, number).map_err(|refusal| Error::Refused {
            object: loader.namespace.name(id).unwrap_or_default().to_string(),
            refusal,
        })?;
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
    // SAFETY: the planner says that the word is one of a writable segment of the object.
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
