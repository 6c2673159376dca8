//! The words to be written to relocate objects at the addresses that were chosen for them.

use alloc::string::ToString;
use alloc::vec::Vec;

use goblin::elf::reloc::*;
use goblin::elf64::sym::Sym;

use crate::exports::{Export, Exports, Origin};
use crate::live::{Live, is_function};
use crate::namespace::{Id, Namespace};
use crate::object::{owned, text};
use crate::refusal::Refusal;
use crate::relocation::{Relocation, Relocations, Table};
use crate::scope::{Bound, Member, Scope};
use crate::symbol::{SymbolKind, is_unique};

/// The time at which the functions are looked up that an object calls through its PLT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// When the object is relocated.
    Now,
    /// At the first call, unless the object asks for an earlier one.
    Lazy,
}

/// One write into a writable segment of the object that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The object that is relocated.
    pub object: Id,
    /// vaddr of the first octet.
    pub address: u64,
    /// The value to write.
    pub value: Value,
}

/// A value to write, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Eight octets.
    Word(u64),
    /// Four octets.
    Half(u32),
    /// A word: the result of the function at `resolver`, plus `addend`. The function is called
    /// after all other writes.
    Call {
        /// vaddr of the function.
        resolver: u64,
        /// The number that is added to its result.
        addend: i64,
    },
    /// A word: the address of the object's own code that lets the loader look the function up at
    /// the first call.
    Lazy {
        /// vaddr of that code.
        stub: u64,
    },
    /// Two words, a function of the loader and its argument, which depend on the place of the
    /// variable: `offset` octets into the block of `module`, which is `below` octets below the
    /// thread pointer if it has a fixed place.
    Descriptor {
        /// Number of the object's module.
        module: u64,
        /// The distance in octets; `None` if it has no fixed place.
        below: Option<u64>,
        /// In octets.
        offset: u64,
    },
    /// Two words for a weak variable without a definition: the function must yield `address` as its
    /// address.
    NoDescriptor {
        /// 0, plus the addend of the relocation.
        address: u64,
    },
}

impl<B: AsRef<[u8]>, E: Exports> Namespace<B, E> {
    /// Calls `write` for all writes that relocate these objects, in order. `objects` are those that
    /// [`link`](Self::link) returned. The writes before a refusal change no other object.
    pub fn plan(&mut self, objects: &[Id], binding: Binding, mut write: impl FnMut(Write)) -> Result<(), Refusal> {
        let mut calls = Vec::new();
        let mut live = core::mem::take(&mut self.live);
        let result = self.plan_all(objects, binding, &mut live, &mut calls, &mut write);
        self.live = live;
        result?;
        calls.into_iter().for_each(write);
        Ok(())
    }

    fn plan_all(
        &mut self,
        objects: &[Id],
        binding: Binding,
        live: &mut Live,
        calls: &mut Vec<Write>,
        write: &mut impl FnMut(Write),
    ) -> Result<(), Refusal> {
        for id in objects {
            let scope = self.scope(*id).ok_or(Refusal::Stale)?;
            let own = self.member(*id).ok_or(Refusal::Stale)?;
            let mut planner = Planner { lazy: binding == Binding::Lazy, ..Planner::new(own, &scope, live) };
            for relocation in Relocations::new(own.view) {
                match planner.plan(&relocation)? {
                    // A resolver may call functions and read variables of its own object, or of any
                    // other.
                    Some(call @ Write { value: Value::Call { .. }, .. }) => calls.push(call),
                    Some(other) => write(other),
                    None => {}
                }
            }
            let used = (planner.bound_to, planner.unique);
            self.note(*id, used);
        }
        Ok(())
    }

    /// The write that binds the entry with this number in the object's PLT, for the first call
    /// through it.
    pub fn bind(&mut self, object: Id, number: usize) -> Result<Write, Refusal> {
        let mut live = core::mem::take(&mut self.live);
        let result = self.bind_with(object, number, &mut live);
        self.live = live;
        result
    }

    fn bind_with(&mut self, object: Id, number: usize, live: &mut Live) -> Result<Write, Refusal> {
        let scope = self.scope(object).ok_or(Refusal::Stale)?;
        let own = self.member(object).ok_or(Refusal::Stale)?;
        let relocation = Relocations::of_plt(own.view, number).ok_or(Refusal::Stale)?;
        let mut planner = Planner::new(own, &scope, live);
        let write = planner.plan(&relocation)?.ok_or(Refusal::Stale)?;
        let used = (planner.bound_to, planner.unique);
        self.note(object, used);
        Ok(write)
    }
}

pub(crate) struct Planner<'a, E> {
    own: Member<'a>,
    scope: &'a Scope<'a, E>,
    lazy: bool,
    /// The last symbol that was looked up. The next relocation often has the same.
    last: Option<(u32, Sym, Bound<'a>)>,
    bound_to: Vec<Id>,
    /// Objects whose unique symbols are in use: glibc does not unload them any more.
    unique: Vec<Id>,
    live: &'a mut Live,
}

impl<'a, E: Exports> Planner<'a, E> {
    pub fn new(own: Member<'a>, scope: &'a Scope<'a, E>, live: &'a mut Live) -> Self {
        Self { own, scope, lazy: false, last: None, bound_to: Vec::new(), unique: Vec::new(), live }
    }

    /// The write of a relocation, in the terms of the psABI (x86-64, table 4.9): S is the symbol's
    /// value, A the addend, B the base, P the place.
    fn plan(&mut self, relocation: &Relocation) -> Result<Option<Write>, Refusal> {
        let own = self.own;
        relocation.check(own.view).map_err(|fault| fault.at(own.name))?;
        let address = own.base.wrapping_add(relocation.target);
        let write = |value| Ok(Some(Write { object: own.id, address, value }));
        let add = |value: u64| value.wrapping_add_signed(relocation.addend);
        match relocation.kind {
            R_X86_64_NONE => return Ok(None),
            R_X86_64_RELATIVE => return write(Value::Word(add(own.base))),
            R_X86_64_IRELATIVE => return write(Value::Call { resolver: add(own.base), addend: 0 }),
            R_X86_64_JUMP_SLOT
                if self.lazy && !own.view.info.dynamic.flags.bind_now && relocation.table == Table::JmpRel =>
            {
                return write(Value::Lazy { stub: own.base.wrapping_add(own.view.word(relocation.target)) });
            }
            _ => {}
        }
        let (symbol, bound) = self.bound(relocation)?;
        self.write(relocation, &symbol, bound)
    }

    /// The write of a relocation whose symbol, `symbol` in the object's own table, is bound to
    /// `bound`.
    pub fn write(&mut self, relocation: &Relocation, symbol: &Sym, bound: Bound) -> Result<Option<Write>, Refusal> {
        let own = self.own;
        let address = own.base.wrapping_add(relocation.target);
        let write = |value| Ok(Some(Write { object: own.id, address, value }));
        let add = |value: u64| value.wrapping_add_signed(relocation.addend);
        if is_thread_local(relocation.kind) {
            return Ok(self.thread_local(relocation, bound)?.map(|value| Write { object: own.id, address, value }));
        }
        if let R_X86_64_SIZE64 | R_X86_64_SIZE32 = relocation.kind {
            // The size of an export is known only to the object that refers to it.
            let size = match bound {
                Bound::Symbol(_, symbol) => symbol.st_size,
                Bound::Export(_) | Bound::Nothing => symbol.st_size,
            };
            return match relocation.kind {
                R_X86_64_SIZE64 => write(Value::Word(add(size))),
                _ => write(Value::Half(u32::try_from(add(size)).map_err(|_| self.out_of_range(relocation))?)),
            };
        }
        let value = match bound {
            Bound::Export(Export { origin: Origin::StandInThreadLocal, .. }) => return Err(self.wrong_kind(relocation)),
            Bound::Export(export) => export.value,
            Bound::Nothing => 0,
            Bound::Symbol(member, found)
                if member.id != own.id
                    && is_function(&member, &found)
                    && let Some(entry) =
                        member.entry(self.live, own.view.name(symbol), own.view.wanted(relocation.symbol))? =>
            {
                entry
            }
            Bound::Symbol(member, symbol) => match SymbolKind::of(&symbol) {
                SymbolKind::ThreadLocal => return Err(self.wrong_kind(relocation)),
                SymbolKind::Resolver => {
                    let addend = match relocation.kind {
                        R_X86_64_64 => relocation.addend,
                        R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => 0,
                        // No compiler makes a reference by distance to a function that is chosen
                        // later.
                        kind => return Err(Refusal::UnknownRelocation { place: relocation.place(own.name), kind }),
                    };
                    return write(Value::Call { resolver: member.address(&symbol), addend });
                }
                _ => member.address(&symbol),
            },
        };
        let distance = add(value).wrapping_sub(address);
        match relocation.kind {
            R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => write(Value::Word(value)),
            R_X86_64_PC64 => write(Value::Word(distance)),
            R_X86_64_PC32 | R_X86_64_PLT32 => match i32::try_from(distance as i64) {
                Ok(distance) => write(Value::Half(distance as u32)),
                Err(_) => Err(self.out_of_range(relocation)),
            },
            _ => write(Value::Word(add(value))),
        }
    }

    /// The write for a thread-local variable. `None`: nothing is written for a weak one without a
    /// definition.
    fn thread_local(&self, relocation: &Relocation, bound: Bound) -> Result<Option<Value>, Refusal> {
        let (member, offset) = match bound {
            Bound::Symbol(member, symbol) => match SymbolKind::of(&symbol) {
                // Without a symbol, the object's own block is meant.
                _ if relocation.symbol == 0 => (member, 0),
                SymbolKind::ThreadLocal => (member, symbol.st_value),
                _ => return Err(self.wrong_kind(relocation)),
            },
            // It has no module that the other kinds could name.
            Bound::Export(Export { origin: Origin::StandInThreadLocal, value })
                if relocation.kind == R_X86_64_TPOFF64 =>
            {
                return Ok(Some(Value::Word(value.wrapping_add_signed(relocation.addend))));
            }
            Bound::Export(_) => return Err(self.wrong_kind(relocation)),
            Bound::Nothing => {
                let address = relocation.addend as u64;
                return Ok((relocation.kind == R_X86_64_TLSDESC).then_some(Value::NoDescriptor { address }));
            }
        };
        let no_module = || Refusal::NoModule { object: member.name.to_string() };
        let tls = member.tls.ok_or_else(no_module)?;
        let offset = offset.wrapping_add_signed(relocation.addend);
        Ok(Some(match relocation.kind {
            R_X86_64_DTPMOD64 => Value::Word(tls.module),
            R_X86_64_DTPOFF64 => Value::Word(offset),
            R_X86_64_TLSDESC => Value::Descriptor { module: tls.module, below: tls.below, offset },
            _ => match tls.below {
                Some(below) => Value::Word(offset.wrapping_sub(below)),
                None => {
                    let (place, provider) = (relocation.place(self.own.name), member.name.to_string());
                    return Err(Refusal::StaticTls { place, provider });
                }
            },
        }))
    }

    fn bound(&mut self, relocation: &Relocation) -> Result<(Sym, Bound<'a>), Refusal> {
        let index = relocation.symbol;
        if let Some((last, symbol, bound)) = self.last
            && last == index
        {
            return Ok((symbol, bound));
        }
        let view = self.own.view;
        let symbol = view.symbol(index).unwrap_or_default();
        let bound = self.scope.bind(self.own, index, &symbol).ok_or_else(|| Refusal::MissingSymbol {
            object: self.own.name.to_string(),
            symbol: owned(view.name(&symbol)),
            version: view.version_of(index).map(|version| text(view.string_at(version.name)).to_string()),
        })?;
        if let Bound::Symbol(member, symbol) = bound
            && is_unique(&symbol)
            && !self.unique.contains(&member.id)
        {
            self.unique.push(member.id);
        }
        if let Bound::Symbol(member, _) = bound
            && member.id != self.own.id
            && !self.bound_to.contains(&member.id)
        {
            self.bound_to.push(member.id);
        }
        self.last = Some((index, symbol, bound));
        Ok((symbol, bound))
    }

    fn out_of_range(&self, relocation: &Relocation) -> Refusal {
        Refusal::OutOfRange { place: relocation.place(self.own.name), kind: relocation.kind }
    }

    fn wrong_kind(&self, relocation: &Relocation) -> Refusal {
        let own = self.own.view.symbol(relocation.symbol).map(|symbol| owned(self.own.view.name(&symbol)));
        Refusal::WrongKind { place: relocation.place(self.own.name), symbol: own.unwrap_or_default() }
    }
}

fn is_thread_local(kind: u32) -> bool {
    matches!(kind, R_X86_64_DTPMOD64 | R_X86_64_DTPOFF64 | R_X86_64_TPOFF64 | R_X86_64_TLSDESC)
}
