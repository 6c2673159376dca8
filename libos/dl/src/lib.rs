//! Loads shared objects into this pVM. What is decided is decided by `zooid-loader`; here pages are mapped, words are written, and functions of
//! objects are called.
//!
//! - [`open`], [`Library`], [`address`], [`iterate`]: what applications use, by way of `zooid::dl` and `dlopen`.
//! - `load`: the objects that are loaded, and the steps from a file to a library in use.
//! - `runtime`: what objects import.
//! - `program`: what the image itself needs.
//! - `rules`: whose libraries the image maps, and which.
//! - `source`: where files come from.
//! - `update_requests`: updates that dom0 asks for.
//! - `tls`: thread-local variables of objects.
//! - `live`: libraries that are replaced while they are in use.
//! - `lazy`: functions that are looked up at their first call.

#![no_std]

extern crate alloc;

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

/// How an object is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Functions are looked up at their first call (`RTLD_LAZY`), unless the object wants it otherwise.
    pub lazy: bool,
    /// Its symbols, and those of what it needs, are for all objects that are opened later (`RTLD_GLOBAL`).
    pub global: bool,
}

/// An open library. Dropping it closes it: it is unmapped when nobody has it open, and nothing that is loaded needs it.
#[derive(Debug)]
pub struct Library(load::Key);

/// Opens a library, and all that it needs, and calls their initialisers. One that is open already is the same.
///
/// # Errors
/// See [`Error`]; nothing stays loaded that was not before.
pub fn open(name: &str, flags: Flags) -> Result<Library, Error> {
    load::open(name, flags).map(Library)
}

impl Library {
    /// Where a function or a variable of it is, or of what it needs; a thread-local variable's is the calling thread's.
    ///
    /// # Errors
    /// [`NoSymbol`](Error::NoSymbol).
    pub fn symbol(&self, name: &str) -> Result<*const (), Error> {
        load::symbol(Some(self.0), name)
    }

    /// A function of it, or of what it needs, to be called: `F` is its type, as in `extern "C" fn(c_int) -> c_int`.
    ///
    /// # Errors
    /// [`NoSymbol`](Error::NoSymbol).
    ///
    /// # Safety
    /// The symbol is a function of that type, and is not called when the library is open no more.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, Error> {
        const { assert!(size_of::<F>() == size_of::<usize>(), "F is to be a pointer to a function") };
        // SAFETY: the caller's promise.
        self.symbol(name).map(|address| unsafe { transmute_copy(&address) })
    }

    /// Calls its `main` with these words, the first of which is the name it goes by, and ends the pVM with what it returns. Returns only if there is no `main`.
    pub fn run(&self, words: &[&str]) -> Error {
        match self.symbol("main") {
            Ok(main) => runtime::run(main, words),
            Err(error) => error,
        }
    }

    /// Begins a section in which the calling thread sees one version of the library only: an [`update`] waits until it is over. Sections nest. One that begins
    /// while an update waits for others is delayed.
    pub fn enter(&self) -> Section<'_> {
        live::enter(self.0);
        Section { library: self, _not_send: PhantomData }
    }

    /// As a number that [`from_raw`](Self::from_raw) takes back.
    pub fn into_raw(self) -> usize {
        let Self(load::Key(key)) = self;
        core::mem::forget(self);
        key as usize
    }

    /// # Errors
    /// [`NotOpen`](Error::NotOpen) if no library is open by this number.
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

/// See [`Library::enter`]. Dropping it ends the section.
#[derive(Debug)]
#[must_use]
pub struct Section<'a> {
    library: &'a Library,
    /// It is the thread's that began it.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        live::leave(self.library.0);
    }
}

/// Replaces an open library, which the image lets be replaced ([`live!`]), by another version of it, or by the newest one. Returns which
/// version was there before, and which one is now; where they are the same, nothing was to be done.
///
/// The new version is loaded beside the old one; then calls from outside and new sections wait until no thread is in the old one, for `limit` at most. `migrate`, if
/// the new version exports such a function, takes over what the old one knows. From then on all who have the library open have the new version, and the
/// old one is unloaded.
///
/// # Errors
/// See [`Error`]: the old version is in use as before, and the new one is not loaded. In any case one line on the console says what has become of it.
pub fn update(name: &str, version: Option<&str>, limit: Duration) -> Result<(String, String), Error> {
    live::update(name, version, limit).map(|(from, to)| (from.to_string(), to.to_string()))
}

/// Where a symbol is that any object would find that is opened now: of the image, or of a library that is open with `global`.
///
/// # Errors
/// [`NoSymbol`](Error::NoSymbol).
pub fn symbol(name: &str) -> Result<*const (), Error> {
    load::symbol(None, name)
}

/// What an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The object's name.
    pub object: String,
    /// What is added to the addresses in its file.
    pub base: usize,
    /// The symbol that covers the address, and where it begins.
    pub symbol: Option<(String, usize)>,
}

/// The object that has an address, if it is one that was loaded.
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

/// An object that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// What is added to the addresses in its file.
    pub base: usize,
    /// Its addresses.
    pub range: Range<usize>,
}

/// Calls `each` with all objects that are loaded, in the order in which they were loaded.
pub fn iterate(each: impl FnMut(Object)) {
    load::objects().into_iter().for_each(each);
}
