//! Shows what the command line says: arguments, environment, and a record of every log level.

#![no_std]
#![no_main]

use test_guests::success;
use zooid::{env, log, println};

zooid::main!(main);

fn main() {
    for (index, argument) in env::args().enumerate() {
        println!("argument {index} of {}: <{argument}>", env::args().len());
    }
    for (name, value) in env::vars() {
        println!("variable {name}: <{value}>");
    }
    println!("HOME is {:?}", env::var("HOME"));
    log::error!("an error");
    log::warn!("a warning");
    log::info!("an information");
    log::debug!("a detail");
    log::trace!("a trace");
    success();
}
