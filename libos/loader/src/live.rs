//! Libraries that are replaced while they are in use.
//!
//! Code outside of such a library calls its functions through *entries*, whose addresses stay when
//! the library is replaced. Each entry is a jump by way of a word, its *slot*. This module decides
//! the places of the entries, the contents of their slots, and the words of other objects that must
//! be rewritten.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::PAGE_SIZE;
use crate::exports::Exports;
use crate::namespace::{Id, Namespace, Search};
use crate::object::{Object, owned};
use crate::plan::{Planner, Write};
use crate::refusal::{Mismatch, Refusal};
use crate::relocation::Relocations;
use crate::scope::{Bound, Definition, Found, Member};
use crate::segment::Rights;
use crate::symbol::{Key, SymbolKind, Wanted};

/// Octets from one entry to the next. The slot of an entry is one page behind it: pages of entries
/// and pages of slots alternate.
pub const ENTRY_SIZE: u64 = 16;
/// Entries in a page. The first one belongs to no function: it serves the others.
pub const ENTRIES_PER_PAGE: usize = (PAGE_SIZE / ENTRY_SIZE) as usize - 1;

/// The entries of a library that was [made live](Namespace::make_live).
#[derive(Debug)]
pub(crate) struct Entries {
    start: u64,
    /// The highest number of entries.
    room: usize,
    used: Vec<Entry>,
}

/// A function that code outside of the library uses.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    version: Option<Vec<u8>>,
}

impl Entries {
    /// The address of a function's entry, which the first request makes; `None` if there is no
    /// room.
    fn address(&mut self, name: &[u8], version: Option<&[u8]>) -> Option<u64> {
        let same = |entry: &Entry| entry.name == name && entry.version.as_deref() == version;
        let number = match self.used.iter().position(same) {
            Some(number) => number,
            None if self.used.len() < self.room => {
                self.used.push(Entry { name: name.to_vec(), version: version.map(<[u8]>::to_vec) });
                self.used.len() - 1
            }
            None => return None,
        };
        Some(entry_address(self.start, number))
    }
}

/// The address of entry `number`, of the entries that begin at `start`.
pub fn entry_address(start: u64, number: usize) -> u64 {
    let (page, place) = (number / ENTRIES_PER_PAGE, number % ENTRIES_PER_PAGE);
    start + page as u64 * 2 * PAGE_SIZE + (place as u64 + 1) * ENTRY_SIZE
}

/// The number of the entry at an address; the inverse of [`entry_address`].
pub fn entry_number(start: u64, address: u64) -> Option<usize> {
    let distance = address.checked_sub(start)?;
    let place = (distance % (2 * PAGE_SIZE) / ENTRY_SIZE).checked_sub(1)? as usize;
    let number = (distance / (2 * PAGE_SIZE)) as usize * ENTRIES_PER_PAGE + place;
    (place < ENTRIES_PER_PAGE && entry_address(start, number) == address).then_some(number)
}

/// The changes that make all users of a library use its new version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// The targets of the entries, in the order of the entries.
    pub targets: Vec<Definition>,
    /// The words of other objects that refer to its variables.
    pub writes: Vec<Write>,
}

impl<B: AsRef<[u8]>, E: Exports> Namespace<B, E> {
    /// Makes all later references from outside to functions of an object lead to entries. They lie
    /// from `start` on, in `pages` pages, each followed by a page of slots. It is called before
    /// anything is bound to the object.
    pub fn make_live(&mut self, id: Id, start: u64, pages: usize) {
        self.live.insert(id, Entries { start, room: pages * ENTRIES_PER_PAGE, used: Vec::new() });
    }

    /// Adds another version of a present object, under the same name. The search finds neither it
    /// nor its symbols until it [takes the place](Self::exchange) of the old one. Its own
    /// references are bound as those of the old one.
    pub fn add_beside(
        &mut self,
        old: Id,
        object: Object<B>,
        base: u64,
        tls: Option<crate::TlsPlace>,
    ) -> Result<Id, Refusal> {
        let name = self.name(old).ok_or(Refusal::Stale)?.to_string();
        let roots = self.loaded(old).map_or(Vec::new(), |loaded| loaded.roots.clone());
        let id = self.add(&name, object, base, tls)?;
        if let Some(loaded) = self.loaded(id) {
            (loaded.beside, loaded.roots) = (Some(old), roots);
        }
        Ok(id)
    }

    /// As [`symbol`](Self::symbol), for callers that keep the result while libraries are replaced:
    /// a function is given as its entry, except for those of `own`.
    pub fn lasting_symbol(
        &mut self,
        search: Search,
        (name, version): (&str, Option<&str>),
        own: Option<Id>,
    ) -> Result<Option<Found>, Refusal> {
        let mut live = core::mem::take(&mut self.live);
        let wanted = Wanted::at_run_time(version);
        let found = match self.find_symbol(search, name, wanted) {
            Some(Bound::Symbol(member, symbol)) if Some(member.id) != own && is_function(&member, &symbol) => {
                member.entry(&mut live, name.as_bytes(), wanted).map(|entry| match entry {
                    Some(address) => Some(Found { object: Some(member.id), definition: Definition::Address(address) }),
                    None => Bound::Symbol(member, symbol).found(),
                })
            }
            other => Ok(other.and_then(|bound| bound.found())),
        };
        self.live = live;
        found
    }

    /// The number of entries of an object.
    pub fn entries(&self, id: Id) -> usize {
        self.live.get(&id).map_or(0, |entries| entries.used.len())
    }

    /// Drops all entries but the first `count`. Nothing may refer to the others.
    pub fn forget_entries(&mut self, id: Id, count: usize) {
        if let Some(entries) = self.live.get_mut(&id) {
            entries.used.truncate(count);
        }
    }

    /// The targets of the entries of `id`, from number `first` on, in `version`: the object itself,
    /// or one that is to take its place.
    pub fn targets(&self, id: Id, version: Id, first: usize) -> Result<Vec<Definition>, Refusal> {
        let member = self.member(version).ok_or(Refusal::Stale)?;
        let entries = self.live.get(&id).map_or(&[][..], |entries| entries.used.get(first..).unwrap_or_default());
        let target = |entry: &Entry| {
            let wanted = entry.version.as_deref().map_or(Wanted::Newest, Wanted::version);
            let (_, symbol) = member
                .view
                .find(&Key::new(&entry.name), wanted)
                .ok_or_else(|| mismatch(&entry.name, Mismatch::Missing))?;
            if !is_function(&member, &symbol) {
                return Err(mismatch(&entry.name, Mismatch::OtherKind));
            }
            Bound::Symbol(member, symbol).found().map(|found| found.definition).ok_or(Refusal::Stale)
        };
        entries.iter().map(target).collect()
    }

    /// The changes that make all users of `old` use `new`, which was added beside it and is
    /// relocated. The error names a use that the new version does not allow.
    pub fn replacement(&self, old: Id, new: Id) -> Result<Replacement, Refusal> {
        let mut replacement = Replacement { targets: self.targets(old, new, 0)?, writes: Vec::new() };
        let member = self.member(new).ok_or(Refusal::Stale)?;
        for id in self.objects().filter(|id| *id != old && *id != new) {
            let (Some(scope), Some(own)) = (self.scope(id), self.member(id)) else { continue };
            let mut live = Default::default();
            let mut planner = Planner::new(own, &scope, &mut live);
            for relocation in Relocations::new(own.view).filter(|relocation| relocation.symbol != 0) {
                let Some(symbol) = own.view.symbol(relocation.symbol) else { continue };
                let name = own.view.name(&symbol);
                let Some(Bound::Symbol(before, then)) = scope.bind(own, relocation.symbol, &symbol) else { continue };
                if before.id != old {
                    continue;
                }
                let (_, now) = member
                    .view
                    .find(&Key::new(name), own.view.wanted(relocation.symbol))
                    .ok_or_else(|| mismatch(name, Mismatch::Missing))?;
                match (is_function(&before, &then), is_function(&member, &now)) {
                    (true, true) => continue,
                    (false, false) => {}
                    _ => return Err(mismatch(name, Mismatch::OtherKind)),
                }
                if SymbolKind::of(&then) == SymbolKind::ThreadLocal {
                    return Err(mismatch(name, Mismatch::ThreadLocal));
                }
                if now.st_size < then.st_size {
                    return Err(mismatch(name, Mismatch::Smaller));
                }
                replacement.writes.extend(planner.write(&relocation, &symbol, Bound::Symbol(member, now))?);
            }
        }
        Ok(replacement)
    }

    /// Puts an object that was added beside another in its place. They exchange their numbers, so
    /// that all users of the old one have the new one. `new` is then the number of the old version,
    /// which is no longer needed.
    pub fn exchange(&mut self, old: Id, new: Id) {
        let (Some(mut before), Some(mut after)) = (self.objects.remove(&old), self.objects.remove(&new)) else {
            return;
        };
        (before.beside, after.beside) = (Some(old), None);
        self.objects.insert(old, after);
        self.objects.insert(new, before);
        for loaded in self.objects.values_mut() {
            for list in [&mut loaded.needed, &mut loaded.sorted, &mut loaded.roots, &mut loaded.bound_to] {
                rename(list, new, old);
            }
        }
    }
}

/// Replaces one object by another in a list.
fn rename(list: &mut Vec<Id>, from: Id, to: Id) {
    if let Some(place) = list.iter().position(|id| *id == from) {
        if list.contains(&to) {
            list.remove(place);
        } else {
            list[place] = to;
        }
    }
}

impl Member<'_> {
    /// The entry by which other objects reach a function of this object; `None` if the object is
    /// not replaceable.
    pub(crate) fn entry(&self, live: &mut Live, name: &[u8], wanted: Wanted) -> Result<Option<u64>, Refusal> {
        let Some(entries) = live.get_mut(&self.beside.unwrap_or(self.id)) else { return Ok(None) };
        let version = self.view.find(&Key::new(name), wanted).and_then(|(index, _)| self.view.version_of(index));
        let address = entries.address(name, version.map(|version| self.view.string_at(version.name)));
        address.map(Some).ok_or_else(|| Refusal::Entries { object: self.name.to_string(), room: entries.room })
    }
}

/// The entries of each object that has any.
pub(crate) type Live = alloc::collections::BTreeMap<Id, Entries>;

/// True if a symbol stands for something that is called.
pub(crate) fn is_function(member: &Member, symbol: &goblin::elf64::sym::Sym) -> bool {
    let executable = |address| {
        let mut segments = member.view.info.segments.iter();
        segments.any(|segment| segment.rights == Rights::ReadExecute && segment.memory.contains(&address))
    };
    match SymbolKind::of(symbol) {
        SymbolKind::Function | SymbolKind::Resolver => true,
        // Symbols from assembly language often have no type.
        SymbolKind::Other(0) => executable(symbol.st_value),
        _ => false,
    }
}

fn mismatch(name: &[u8], mismatch: Mismatch) -> Refusal {
    Refusal::Mismatch { symbol: owned(name), mismatch }
}
