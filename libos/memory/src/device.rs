//! Pages of the DEVICE zone with a fixed place, counted from its base. Boot maps them there, so
//! that the code that waits in a prepared domain finds them before it knows anything else.

/// shared_info.
pub const SHARED_INFO: usize = 0;
/// Console ring.
pub const CONSOLE: usize = 1;
/// Xenstore ring.
pub const XENSTORE: usize = 2;
/// Control page of the fork component.
pub const CONTROL: usize = 3;
/// Table of the family's members (docs/protocols/ipc.md), if there is one.
pub const MEMBERS: usize = 6;
/// Stack that a prepared domain waits on; the page below is unmapped.
pub const SHELL_STACK: usize = 5;
/// First page of the grant table.
pub const GRANT_TABLE: usize = 8;
/// Pages that nothing else may use.
pub const RESERVED: usize = GRANT_TABLE + 64;
