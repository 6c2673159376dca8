//! Runs until the toolstack ends it: "idle" waits without end, "busy" never waits, "ticking" shows a line every 50 ms.

#![no_std]
#![no_main]

use core::hint::black_box;

use test_guests::{argument, error};
use zooid::time::Duration;
use zooid::{println, thread};

zooid::main!(main);

fn main() {
    println!("ready");
    match argument() {
        "idle" => thread::sleep(Duration::MAX),
        "busy" => {
            thread::spawn(spin);
            spin()
        }
        "ticking" => {
            for tick in 0u64.. {
                println!("tick {tick}");
                thread::sleep(Duration::from_millis(50));
            }
        }
        other => error!("no such occupation: {other}"),
    }
}

fn spin() {
    loop {
        black_box(());
    }
}
