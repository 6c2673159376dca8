//! Loads shared objects into this pVM. `zooid-loader` makes the decisions; this crate maps pages,
//! writes words, and calls functions of objects.
//!
//! - [`open`], [`Library`], [`address`], [`iterate`]: the interface for applications, by way of
//!   `zooid::dl`.
//! - `load`: the loaded objects, and the steps from a file to a library in use.
//! - `runtime`: the symbols that objects import.
//! - `dlfcn`: the interface for C.
//! - `program`: the objects that the image itself needs.
//! - `rules`: the signers and versions of libraries that the image accepts.
//! - `source`: the origin of files.
//! - `update_requests`: updates that dom0 asks for.
//! - `tls`: thread-local variables of objects.
//! - `live`: libraries that are replaced while they are in use.
//! - `lazy`: functions that are looked up at their first call.

#![no_std]

extern crate alloc;

mod dlfcn;
mod error;
mod lazy;
mod live;
mod load;
mod program;
mod rules;
mod runtime;
mod source;
mod tls;
mod update_requests;

use alloc::string::{String, ToString};
use core::marker::PhantomData;
use core::mem::transmute_copy;
use core::ops::Range;
use core::time::Duration;

pub use error::Error;
pub use rules::Rule;
pub use zooid_loader::{Mismatch, Refusal};
pub use zooid_manifest::Refusal as RuleRefusal;

/// Options for opening an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Functions are looked up at their first call (`RTLD_LAZY`), unless the object asks for an
    /// earlier time.
    pub lazy: bool,
    /// Its symbols, and those of its dependencies, are visible to all objects that are opened later
    /// (`RTLD_GLOBAL`).
    pub global: bool,
    /// Only a library that is loaded already is opened (`RTLD_NOLOAD`); else the error is
    /// [`Error::NotOpen`].
    pub loaded: bool,
    /// The references of it and its dependencies are looked for in them before all others
    /// (`RTLD_DEEPBIND`). Objects that are loaded already stay as they are.
    pub deep: bool,
    /// It stays loaded when it is closed (`RTLD_NODELETE`).
    pub stays: bool,
}

/// An open library. Dropping it closes it; the library is unmapped when it is no longer open and no
/// loaded object needs it.
#[derive(Debug)]
pub struct Library(load::Key);

/// Opens a library and all its dependencies, and calls their initialisers. A library that is open
/// already is opened once more.
///
/// # Errors
/// See [`Error`]; on an error nothing new stays loaded.
pub fn open(name: &str, flags: Flags) -> Result<Library, Error> {
    load::open(name, flags).map(Library)
}

impl Library {
    /// The address of a function or a variable of the library or of its dependencies. For a
    /// thread-local variable, it is that of the calling thread.
    ///
    /// # Errors
    /// [`NoSymbol`](Error::NoSymbol).
    pub fn symbol(&self, name: &str) -> Result<*const (), Error> {
        load::symbol(load::Place::Library(self.0), name, None)
    }

    /// A function of the library or of its dependencies. `F` is its type, such as `extern "C"
    /// fn(c_int) -> c_int`.
    ///
    /// # Errors
    /// [`NoSymbol`](Error::NoSymbol).
    ///
    /// # Safety
    /// The symbol is a function of that type, and is not called after the library is closed.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, Error> {
        const { assert!(size_of::<F>() == size_of::<usize>(), "F is to be a pointer to a function") };
        // SAFETY: the caller's promise.
        self.symbol(name).map(|address| unsafe { transmute_copy(&address) })
    }

    /// Calls its `main` with these words, the first of which is the program's name, and ends the
    /// pVM with the result. Returns only if there is no `main`.
    pub fn run(&self, words: &[&str]) -> Error {
        match self.symbol("main") {
            Ok(main) => runtime::run(main, words),
            Err(error) => error,
        }
    }

    /// Begins a section in which the calling thread sees one version of the library only; an
    /// [`update`] waits until it is over. Sections nest. A section that begins while an update
    /// waits for others is delayed.
    pub fn enter(&self) -> Section<'_> {
        live::enter(self.0);
        Section { library: self, _not_send: PhantomData }
    }

    /// The library as a number that [`from_raw`](Self::from_raw) takes back.
    pub fn into_raw(self) -> usize {
        let Self(load::Key(key)) = self;
        core::mem::forget(self);
        key as usize
    }

    /// # Errors
    /// [`NotOpen`](Error::NotOpen) if no library is open with this number.
    pub fn from_raw(number: usize) -> Result<Self, Error> {
        let key = load::Key(number as u64);
        if load::is_open(key) { Ok(Self(key)) } else { Err(Error::NotOpen) }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        load::close(self.0);
    }
}

/// A section begun by [`Library::enter`]. Dropping it ends the section.
#[derive(Debug)]
#[must_use]
pub struct Section<'a> {
    library: &'a Library,
    /// It stays with the thread that began it.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        live::leave(self.library.0);
    }
}

/// Replaces an open library that the image declares with [`live!`] by another version of it, or by
/// the newest one. Returns the version before and the version now; if they are equal, nothing was
/// done.
///
/// The new version is loaded beside the old one. Then calls from outside and new sections wait
/// until no thread is in the old one, for `limit` at most. If the new version exports a function
/// `migrate`, it takes over the old one's state. From then on all users of the library have the new
/// version, and the old one is unloaded.
///
/// # Errors
/// See [`Error`]: the old version is in use as before, and the new one is not loaded. In any case
/// one line on the console reports the outcome.
pub fn update(name: &str, version: Option<&str>, limit: Duration) -> Result<(String, String), Error> {
    live::update(name, version, limit).map(|(from, to)| (from.to_string(), to.to_string()))
}

/// The address of a symbol that every later opened object would find: of the image, or of a library
/// that is open with `global`.
///
/// # Errors
/// [`NoSymbol`](Error::NoSymbol).
pub fn symbol(name: &str) -> Result<*const (), Error> {
    load::symbol(load::Place::Global, name, None)
}

/// The object and symbol that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The object's name.
    pub object: String,
    /// The base, which is added to the addresses in its file.
    pub base: usize,
    /// The symbol that covers the address, with its first address.
    pub symbol: Option<(String, usize)>,
}

/// The loaded object that contains an address.
pub fn address(address: *const ()) -> Option<Address> {
    load::with(|loader| {
        let holder = loader.namespace.address(address as u64)?;
        Some(Address {
            object: loader.namespace.name(holder.object).unwrap_or_default().to_string(),
            base: holder.base as usize,
            symbol: holder.symbol.map(|(name, start)| (name.to_string(), start as usize)),
        })
    })
}

/// A loaded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// The base, which is added to the addresses in its file.
    pub base: usize,
    /// Its addresses.
    pub range: Range<usize>,
}

/// Calls `each` with every loaded object, in the order in which they were loaded.
pub fn iterate(each: impl FnMut(Object)) {
    load::objects().into_iter().for_each(each);
}
