//! An image that trusts no key maps nothing.

#![no_std]
#![no_main]

use test_guests::{check_eq, success};
use zooid::dl::{self, Error, Flags, RuleRefusal};

zooid::main!(main);

fn main() {
    let refused = dl::open("libbase.so", Flags::default());
    check_eq!(refused.err(), Some(Error::Forbidden { object: "libbase.so".into(), rule: RuleRefusal::NoKeys }));
    dl::iterate(|object| test_guests::failure!("{} is there", object.name));
    success();
}
