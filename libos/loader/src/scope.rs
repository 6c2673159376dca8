//! The search for a symbol.

use alloc::vec::Vec;

use goblin::elf::sym::STB_WEAK;
use goblin::elf64::sym::Sym;

use crate::exports::{Export, Exports, Origin};
use crate::namespace::{Id, TlsPlace};
use crate::object::View;
use crate::symbol::{ABSOLUTE, Key, SymbolKind, Wanted, binds_locally, is_unique};

/// The meaning of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// A function or variable at this vaddr.
    Address(u64),
    /// A function that is called and returns the address.
    Resolver(u64),
    /// A variable in each thread's block of this module.
    ThreadLocal {
        /// Number of the module.
        module: u64,
        /// In octets from the begin of its block.
        offset: u64,
    },
}

/// A symbol that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object that defines it; `None` for one of the image's exports.
    pub object: Option<Id>,
    /// Its value.
    pub definition: Definition,
}

/// The object that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// The object.
    pub object: Id,
    /// Its base address.
    pub base: u64,
    /// The symbol that covers the address, with its first address.
    pub symbol: Option<(&'a str, u64)>,
}

/// A loaded object, as a search sees it.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub id: Id,
    pub name: &'a str,
    pub base: u64,
    pub tls: Option<TlsPlace>,
    /// The object whose place it is to take.
    pub beside: Option<Id>,
    pub view: View<'a>,
}

impl Member<'_> {
    pub fn address(&self, symbol: &Sym) -> u64 {
        match symbol.st_shndx {
            ABSOLUTE => symbol.st_value,
            _ => self.base.wrapping_add(symbol.st_value),
        }
    }
}

/// The definition that a reference is bound to.
#[derive(Clone, Copy)]
pub enum Bound<'a> {
    Export(Export),
    Symbol(Member<'a>, Sym),
    /// No definition, for a weak reference.
    Nothing,
}

/// The objects in which a reference is looked for, in order.
pub struct Scope<'a, E> {
    /// The image's symbols, and the number of members that come before the image's own.
    pub exports: (&'a E, usize),
    pub members: Vec<Member<'a>>,
    /// All objects, in the order in which they were added. Only unique symbols are looked for there.
    pub all: Vec<Member<'a>>,
}

impl<'a, E: Exports> Scope<'a, E> {
    pub fn find(&self, key: &Key, wanted: Wanted) -> Option<Bound<'a>> {
        let (exports, before) = self.exports;
        let mut stand_in = None;
        for place in 0..=self.members.len() {
            if place == before {
                match exports.find(key.name, key.gnu) {
                    Some(own @ Export { origin: Origin::Own, .. }) => return Some(Bound::Export(own)),
                    other => stand_in = other,
                }
            }
            if let Some(member) = self.members.get(place)
                && let Some((_, symbol)) = member.view.find(key, wanted)
            {
                return Some(self.unique(key, wanted, *member, symbol));
            }
        }
        stand_in.map(Bound::Export)
    }

    /// Of a unique symbol (STB_GNU_UNIQUE), all references in the process get the same definition,
    /// whatever their scopes: the first one that was loaded. Whoever is bound to it keeps it.
    fn unique(&self, key: &Key, wanted: Wanted, member: Member<'a>, symbol: Sym) -> Bound<'a> {
        let find = |member: &Member<'a>| {
            let (_, symbol) = member.view.find(key, wanted)?;
            is_unique(&symbol).then_some(Bound::Symbol(*member, symbol))
        };
        let first = is_unique(&symbol).then(|| self.all.iter().find_map(find)).flatten();
        first.unwrap_or(Bound::Symbol(member, symbol))
    }

    /// The definition that the symbol with this number in the object's own table is bound to.
    /// `None`: there is none.
    pub fn bind(&self, own: Member<'a>, index: u32, symbol: &Sym) -> Option<Bound<'a>> {
        if binds_locally(symbol) {
            return Some(Bound::Symbol(own, *symbol));
        }
        let key = Key::new(own.view.name(symbol));
        let weak = symbol.st_info >> 4 == STB_WEAK;
        self.find(&key, own.view.wanted(index)).or(weak.then_some(Bound::Nothing))
    }
}

impl Bound<'_> {
    /// `None` for a thread-local variable of an object without a block, and for one of the image.
    pub fn found(&self) -> Option<Found> {
        match self {
            Self::Export(Export { origin: Origin::StandInThreadLocal, .. }) => None,
            Self::Export(export) => Some(Found { object: None, definition: Definition::Address(export.value) }),
            Self::Symbol(member, symbol) => {
                let definition = match SymbolKind::of(symbol) {
                    SymbolKind::Resolver => Definition::Resolver(member.address(symbol)),
                    SymbolKind::ThreadLocal => {
                        Definition::ThreadLocal { module: member.tls?.module, offset: symbol.st_value }
                    }
                    _ => Definition::Address(member.address(symbol)),
                };
                Some(Found { object: Some(member.id), definition })
            }
            Self::Nothing => None,
        }
    }
}
