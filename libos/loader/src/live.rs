//! Libraries that are replaced while they are in use.
//!
//! Who is outside of such a library reaches its functions through *entries*, whose addresses stay when the library is replaced: each is a jump
//! by way of a word, its *slot*. What is decided here is where entries are, what their slots hold, and which words of other objects are to be written anew.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::PAGE_SIZE;
use crate::exports::Exports;
use crate::namespace::{Id, Namespace};
use crate::object::{Object, owned};
use crate::plan::{Planner, Write};
use crate::refusal::{Mismatch, Refusal};
use crate::relocation::Relocations;
use crate::scope::{Bound, Definition, Found, Member};
use crate::segment::Rights;
use crate::symbol::{Key, SymbolKind, Wanted};

/// Octets from one entry to the next. Its slot is a page behind it: pages of entries and pages of slots take turns.
pub const ENTRY_SIZE: u64 = 16;
/// Entries in a page. The first is not a function's: it is there for the others.
pub const ENTRIES_PER_PAGE: usize = (PAGE_SIZE / ENTRY_SIZE) as usize - 1;

/// The entries of a library that was [made live](Namespace::make_live).
#[derive(Debug)]
pub(crate) struct Entries {
    start: u64,
    /// How many there may be.
    room: usize,
    used: Vec<Entry>,
}

/// A function that somebody outside uses.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    version: Option<Vec<u8>>,
}

impl Entries {
    /// The address of a function's entry, which is made if this is the first that asks; `None` if there is no room.
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

/// Where entry `number` is of those that begin at `start`.
pub fn entry_address(start: u64, number: usize) -> u64 {
    let (page, place) = (number / ENTRIES_PER_PAGE, number % ENTRIES_PER_PAGE);
    start + page as u64 * 2 * PAGE_SIZE + (place as u64 + 1) * ENTRY_SIZE
}

/// Which entry has an address; the inverse of [`entry_address`].
pub fn entry_number(start: u64, address: u64) -> Option<usize> {
    let distance = address.checked_sub(start)?;
    let place = (distance % (2 * PAGE_SIZE) / ENTRY_SIZE).checked_sub(1)? as usize;
    let number = (distance / (2 * PAGE_SIZE)) as usize * ENTRIES_PER_PAGE + place;
    (place < ENTRIES_PER_PAGE && entry_address(start, number) == address).then_some(number)
}

/// What is to be done so that all who use a library use its new version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// Where the entries lead, in their order.
    pub targets: Vec<Definition>,
    /// The words of other objects that refer to its variables.
    pub writes: Vec<Write>,
}

impl<B: AsRef<[u8]>, E: Exports> Namespace<B, E> {
    /// From now on all references from outside to functions of an object lead to entries, which lie from `start` on: `pages` pages of them, and behind
    /// each one of slots. Before anything is bound to the object.
    pub fn make_live(&mut self, id: Id, start: u64, pages: usize) {
        self.live.insert(id, Entries { start, room: pages * ENTRIES_PER_PAGE, used: Vec::new() });
    }

    /// Takes in another version of an object that is there, under the same name. Until it [takes the place](Self::exchange) of the old one, nobody finds it or
    /// its symbols; what the old one would find, it finds.
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

    /// As [`symbol`](Self::symbol), for who keeps what is found while libraries are replaced: a function is its entry, but for those of `own`.
    pub fn lasting_symbol(
        &mut self,
        handle: Option<Id>,
        name: &str,
        own: Option<Id>,
    ) -> Result<Option<Found>, Refusal> {
        let mut live = core::mem::take(&mut self.live);
        let found = match self.find_symbol(handle, name, Wanted::Newest) {
            Some(Bound::Symbol(member, symbol)) if Some(member.id) != own && is_function(&member, &symbol) => {
                member.entry(&mut live, name.as_bytes(), Wanted::Newest).map(|entry| match entry {
                    Some(address) => Some(Found { object: Some(member.id), definition: Definition::Address(address) }),
                    None => Bound::Symbol(member, symbol).found(),
                })
            }
            other => Ok(other.and_then(|bound| bound.found())),
        };
        self.live = live;
        found
    }

    /// How many entries an object has.
    pub fn entries(&self, id: Id) -> usize {
        self.live.get(&id).map_or(0, |entries| entries.used.len())
    }

    /// Forgets all entries but the first `count`: nobody has been told of the others.
    pub fn forget_entries(&mut self, id: Id, count: usize) {
        if let Some(entries) = self.live.get_mut(&id) {
            entries.used.truncate(count);
        }
    }

    /// Where the entries of `id`, from number `first` on, lead in `version`: the object itself, or one that is to take its place.
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

    /// What makes all who use `old` use `new`, which was added beside it and is relocated; or which use the new version does not allow.
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

    /// Puts an object that was added beside another in its place: each gets the number of the other, so that all who have the old one have the new one.
    /// What is then `new` is the old version, which nobody needs.
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

/// Has one object stand for another in a list.
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
    /// The entry by which others reach a function of this object; `None` if the object is not one that is replaced.
    pub(crate) fn entry(&self, live: &mut Live, name: &[u8], wanted: Wanted) -> Result<Option<u64>, Refusal> {
        let Some(entries) = live.get_mut(&self.beside.unwrap_or(self.id)) else { return Ok(None) };
        let version = self.view.find(&Key::new(name), wanted).and_then(|(index, _)| self.view.version_of(index));
        let address = entries.address(name, version.map(|version| self.view.string_at(version.name)));
        address.map(Some).ok_or_else(|| Refusal::Entries { object: self.name.to_string(), room: entries.room })
    }
}

/// The entries of each object that has some.
pub(crate) type Live = alloc::collections::BTreeMap<Id, Entries>;

/// Whether a symbol stands for something that is called.
pub(crate) fn is_function(member: &Member, symbol: &goblin::elf64::sym::Sym) -> bool {
    let executable = |address| {
        let mut segments = member.view.info.segments.iter();
        segments.any(|segment| segment.rights == Rights::ReadExecute && segment.memory.contains(&address))
    };
    match SymbolKind::of(symbol) {
        SymbolKind::Function | SymbolKind::Resolver => true,
        // What is written in assembly language often does not say.
        SymbolKind::Other(0) => executable(symbol.st_value),
        _ => false,
    }
}

fn mismatch(name: &[u8], mismatch: Mismatch) -> Refusal {
    Refusal::Mismatch { symbol: owned(name), mismatch }
}
