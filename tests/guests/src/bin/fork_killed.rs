//! Forks while pvmd may be killed at any moment: a fork makes a child or is an error, and nothing else; the memory stays as it was. Once, or
//! (`without_end`) until there is `data/stop`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use test_guests::{argument, check, check_eq, error, failure, success};
use zooid::process::{self, Status};
use zooid::{println, thread, xenstore};

zooid::main!(main);

/// Forks that may be refused for one that succeeds.
const REFUSALS: u32 = 20;

fn main() {
    let without_end = argument() == "without_end";
    for round in 0.. {
        let mut memory: Vec<u32> = (0..20_000).map(|word| word + round).collect();
        let is_right = |memory: &[u32]| (round..).zip(memory).all(|(number, word)| number == *word);
        let mut refusals = 0;
        let child = loop {
            match process::fork() {
                Ok(Some(child)) => break child,
                Ok(None) => process::exit(if is_right(&memory) { 7 } else { 8 }),
                Err(reason) => println!("refused: {reason}"),
            }
            check!(is_right(&memory));
            refusals += 1;
            if refusals == REFUSALS {
                error!("no fork succeeds");
            }
            thread::sleep(Duration::from_millis(100));
        };
        memory[0] = round;
        check!(is_right(&memory));
        // The end may be told more than once, or while nobody is there to tell it.
        match process::waitpid(Some(child), false) {
            Ok(Some(ended)) => check_eq!(ended.status, Status::Exited(7)),
            other => failure!("wait: {other:?}"),
        }
        check_eq!(process::waitpid(None, true), Err(process::WaitError));
        if !without_end || xenstore::read("data/stop").is_ok() {
            println!("{} forks", round + 1);
            break;
        }
    }
    success();
}
