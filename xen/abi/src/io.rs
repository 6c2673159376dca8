//! `public/io/`: the contents of the pages that the two ends of a split device, of the console and
//! of xenstore share.

pub mod console;
pub mod netif;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
