//! The thinking half of the resolver: names, messages, and the order of questions. It has no
//! socket and no clock; [`crate::stack`] asks for it.

mod lookup;
mod message;
mod name;

pub use lookup::{Lookup, Step};
pub use message::{Reply, query, read};
pub use name::{Name, SearchList};
