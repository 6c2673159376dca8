//! The planning part of a fork: the messages between guest and daemon ([`wire`]), and the steps to
//! be done. `docs/protocols/fork.md` has both in words.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod eager;
pub mod id;
pub mod layout;
pub mod link;
pub mod plan;
pub mod relink;
pub mod status;
pub mod wire;
