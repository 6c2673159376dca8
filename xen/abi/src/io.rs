//! `public/io/`: what the two ends of a split device, the console and xenstore put into the pages that they share.

pub mod console;
pub mod netif;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
