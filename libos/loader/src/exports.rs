//! What the image, which no file describes, offers to the objects that it loads.

use alloc::vec::Vec;

use crate::hash;

/// The symbols that are there before any object is loaded. As a program's do, they come before those of all objects.
pub trait Exports {
    /// The address of a symbol; `gnu_hash` is the hash of its name as DT_GNU_HASH has it.
    fn address(&self, name: &[u8], gnu_hash: u32) -> Option<u64>;

    /// Whether the symbols of this library are among them, so that nothing is loaded for a DT_NEEDED of that name.
    fn provides(&self, library: &str) -> bool;
}

/// Exports in a hash table.
#[derive(Debug)]
pub struct ExportTable<'a> {
    /// Open addressing, at most half full; the length is a power of two.
    slots: Vec<Option<(u32, &'a str, u64)>>,
    libraries: &'a [&'a str],
}

impl<'a> ExportTable<'a> {
    /// Of names and addresses; of a name that comes twice the first counts.
    pub fn new(symbols: impl IntoIterator<Item = (&'a str, u64)>, libraries: &'a [&'a str]) -> Self {
        let symbols: Vec<_> = symbols.into_iter().collect();
        let mut table = Self { slots: Vec::new(), libraries };
        table.slots.resize((2 * symbols.len()).next_power_of_two().max(1), None);
        for (name, address) in symbols {
            let hash = hash::gnu(name.as_bytes());
            let slot = table.slot(name.as_bytes(), hash);
            table.slots[slot].get_or_insert((hash, name, address));
        }
        table
    }

    /// Where the name is, or would be.
    fn slot(&self, name: &[u8], hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot].is_some_and(|(other, text, _)| other != hash || text.as_bytes() != name) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

impl Exports for ExportTable<'_> {
    fn address(&self, name: &[u8], gnu_hash: u32) -> Option<u64> {
        self.slots[self.slot(name, gnu_hash)].map(|(_, _, address)| address)
    }

    fn provides(&self, library: &str) -> bool {
        self.libraries.contains(&library)
    }
}

impl<T: Exports + ?Sized> Exports for &T {
    fn address(&self, name: &[u8], gnu_hash: u32) -> Option<u64> {
        (**self).address(name, gnu_hash)
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
            assert_eq!(table.address(name.as_bytes(), hash::gnu(name.as_bytes())), Some(address));
        }
        assert_eq!(table.address(b"name_300", hash::gnu(b"name_300")), None);
        assert!(table.provides("libc.so.6") && !table.provides("libm.so.6"));
        let empty = ExportTable::new([], &[]);
        assert_eq!(empty.address(b"a", hash::gnu(b"a")), None);
    }
}
