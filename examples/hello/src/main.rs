//! The smallest pVM: greets, shows its arguments, and ends.

#![no_std]
#![no_main]

use zooid::{env, println};

zooid::main!(main);

fn main() {
    println!("Hello from a pVM!");
    for (index, argument) in env::args().enumerate() {
        println!("argument {index}: {argument}");
    }
}
