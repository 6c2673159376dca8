//! The symbols that the image, which no file describes, exports to the objects that it loads.

use alloc::vec::Vec;

use crate::hash;

/// The origin of a symbol of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The image itself. Like a program's symbols, these come before those of all objects.
    Own,
    /// A library that the image stands in for. These come last: if the library itself is loaded,
    /// its symbols count.
    StandIn,
    /// As above, for a variable that every thread has at this distance from its thread pointer.
    StandInThreadLocal,
}

/// A symbol of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// The origin, which decides its place in the search.
    pub origin: Origin,
    /// Its address, or its distance from the thread pointer: see [`Origin`].
    pub value: u64,
}

/// The symbols that exist before any object is loaded.
pub trait Exports {
    /// A symbol by its name; `gnu_hash` is the hash of its name in the form of DT_GNU_HASH.
    fn find(&self, name: &[u8], gnu_hash: u32) -> Option<Export>;

    /// True if the symbols of this library are among them, so that nothing is loaded for a
    /// DT_NEEDED of that name.
    fn provides(&self, library: &str) -> bool;
}

/// Exports in a hash table.
#[derive(Debug)]
pub struct ExportTable<'a> {
    /// Open addressing, at most half full; the length is a power of two.
    slots: Vec<Option<Slot<'a>>>,
    libraries: &'a [&'a str],
}

#[derive(Clone, Copy, Debug)]
struct Slot<'a> {
    name: &'a str,
    value: u64,
    hash: u32,
    origin: Origin,
}

impl<'a> ExportTable<'a> {
    /// A table of the image's own symbols, all of which are addresses.
    pub fn new(own: impl IntoIterator<Item = (&'a str, u64), IntoIter: Clone>, libraries: &'a [&'a str]) -> Self {
        let own = own.into_iter().map(|(name, value)| (name, Export { origin: Origin::Own, value }));
        Self::of(own, libraries)
    }

    /// A table of these symbols. Of a name that comes twice, the first counts.
    pub fn of(symbols: impl IntoIterator<Item = (&'a str, Export), IntoIter: Clone>, libraries: &'a [&'a str]) -> Self {
        let symbols = symbols.into_iter();
        let mut table = Self { slots: Vec::new(), libraries };
        table.slots.resize((2 * symbols.clone().count()).next_power_of_two().max(1), None);
        for (name, Export { origin, value }) in symbols {
            let hash = hash::gnu(name.as_bytes());
            let slot = table.slot(name.as_bytes(), hash);
            table.slots[slot].get_or_insert(Slot { name, value, hash, origin });
        }
        table
    }

    /// The slot of the name, or the free one for it.
    fn slot(&self, name: &[u8], hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot].is_some_and(|other| other.hash != hash || other.name.as_bytes() != name) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

impl Exports for ExportTable<'_> {
    fn find(&self, name: &[u8], gnu_hash: u32) -> Option<Export> {
        self.slots[self.slot(name, gnu_hash)].map(|Slot { origin, value, .. }| Export { origin, value })
    }

    fn provides(&self, library: &str) -> bool {
        self.libraries.contains(&library)
    }
}

impl<T: Exports + ?Sized> Exports for &T {
    fn find(&self, name: &[u8], gnu_hash: u32) -> Option<Export> {
        (**self).find(name, gnu_hash)
    }

    fn provides(&self, library: &str) -> bool {
        (**self).provides(library)
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    #[test]
    fn each_name_is_found_and_no_other() {
        let names: Vec<_> = (0..300).map(|number| format!("name_{number}")).collect();
        let table = ExportTable::new(names.iter().map(String::as_str).zip(1000..), &["libc.so.6"]);
        for (name, address) in names.iter().zip(1000..) {
            let export = table.find(name.as_bytes(), hash::gnu(name.as_bytes()));
            assert_eq!(export, Some(Export { origin: Origin::Own, value: address }));
        }
        assert_eq!(table.find(b"name_300", hash::gnu(b"name_300")), None);
        assert!(table.provides("libc.so.6") && !table.provides("libm.so.6"));
        let empty = ExportTable::new([], &[]);
        assert_eq!(empty.find(b"a", hash::gnu(b"a")), None);
    }
}
