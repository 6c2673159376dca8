//! The engine on a hypervisor in memory, with guests that keep to the protocol and guests that do
//! not.

mod core;
mod faults;
mod forks;
mod introduction;
mod ipc;
mod libraries;
mod simulation;
mod world;
