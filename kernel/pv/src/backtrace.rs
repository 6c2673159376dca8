//! Back traces with function names.
//!
//! Code is built with frame pointers, so a trace is a walk along `rbp`. The names come from the
//! image's own `.symtab`, which Xen's domain builder loads behind the image because of the
//! BSD_SYMTAB note.

use core::fmt::{self, Write};

use rustc_demangle::demangle;
use spin::Once;
use zooid_core::symbols::SymbolTable;

use crate::mmu;

static SYMBOLS: Once<SymbolTable<'static>> = Once::new();

/// Number of frames after which a trace stops, so that a loop of frame pointers ends.
const MAX_FRAMES: usize = 64;

/// Takes the bytes that the builder put behind the image.
pub fn init(name_table: &'static [u8]) {
    match SymbolTable::parse(name_table) {
        Ok(table) => {
            SYMBOLS.call_once(|| table);
        }
        Err(error) => log::warn!("back traces will have no names: {error:?}"),
    }
}

/// An address in the text, shown as `function+offset`.
pub struct Symbol(pub u64);

impl fmt::Display for Symbol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SYMBOLS.get().and_then(|table| table.lookup(self.0)) {
            Some(symbol) => write!(out, "{:#018x} {:#}+{:#x}", self.0, demangle(symbol.name), symbol.offset),
            None => write!(out, "{:#018x}", self.0),
        }
    }
}

/// Prints the trace of the code at `rip` whose frame pointer is `rbp`.
pub fn print(out: &mut impl Write, rip: u64, mut rbp: u64) -> fmt::Result {
    writeln!(out, "back trace:")?;
    writeln!(out, "  {}", Symbol(rip))?;
    for _ in 0..MAX_FRAMES {
        let (Some(next), Some(caller)) = (mmu::read_stack_word(rbp), mmu::read_stack_word(rbp + 8)) else {
            break;
        };
        if caller == 0 {
            break;
        }
        // A return address follows its call, so the name is that of the byte before.
        writeln!(out, "  {}", Symbol(caller - 1))?;
        if next <= rbp {
            break;
        }
        rbp = next;
    }
    Ok(())
}

/// Prints the trace of the caller.
pub fn print_here(out: &mut impl Write) -> fmt::Result {
    let (rip, rbp): (u64, u64);
    // SAFETY: reads two registers.
    unsafe {
        core::arch::asm!("lea {}, [rip]", "mov {}, rbp", out(reg) rip, out(reg) rbp, options(nomem, nostack));
    }
    print(out, rip, rbp)
}
