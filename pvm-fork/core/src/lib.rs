//! The guest's decisions about its relatives that need no hardware: requests to pvmd ([`mailbox`]),
//! and the list of its children ([`children`]). `pvm-fork/guest` connects both to the control page
//! and to threads; the tests here play pvmd.
//!
//! The contract is docs/protocols/fork.md.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod children;
pub mod mailbox;

#[cfg(test)]
mod tests;

/// The control page, as the guest sees it; offsets are those of [`wire`](zooid_fork_plan::wire).
pub trait Page {
    /// Reads a word, once. Later reads are not moved before it (acquire).
    fn read(&self, at: usize) -> u32;
    /// Writes a word. Earlier writes are not moved behind it (release).
    fn write(&self, at: usize, value: u32);
}
