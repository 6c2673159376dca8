//! A hostile pVM: writes garbage into the control page that it shares with pvmd, at any moment, and
//! keeps making requests.

#![no_std]
#![no_main]

use core::time::Duration;

use test_guests::{Random, argument, expect, success};
use zooid::process::{self, Forked};
use zooid::{println, thread};
use zooid_kernel::shared::SharedPages;

zooid::main!(main);

/// Page 3 of the DEVICE zone (libos/memory, `device::CONTROL`).
const CONTROL: usize = 0xffff_ffc0_4000_3000;

fn main() {
    let seed: u64 = expect!(argument().parse());
    // An honest fork first, so that pvmd knows this pVM well.
    match expect!(process::fork()) {
        Some(_) => drop(process::wait()),
        None => process::exit(0),
    }
    println!("garbage begins");
    // SAFETY: the fork component has mapped the page there, for ever; words of it are read and
    // written by several all the time.
    let page = unsafe { SharedPages::new(CONTROL as *mut u8, 1) };
    let writer = thread::spawn(move || scribble(&page, seed));
    let end = zooid::time::uptime() + Duration::from_secs(8);
    while zooid::time::uptime() < end {
        // Any result is right, in a child, too.
        if let Ok(Forked::Child(_)) = process::fork_many(1) {
            thread::sleep(Duration::from_millis(50));
            process::abort();
        }
        thread::sleep(Duration::from_millis(5));
    }
    println!("garbage ends");
    success();
    // The writer never ends by itself.
    drop(writer);
    process::exit(0)
}

fn scribble(page: &SharedPages, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        for _ in 0..8 {
            let at = random.below(1024) as usize * 4;
            page.write_u32(at, random.garbage());
        }
        thread::sleep(Duration::from_micros(random.below(2000)));
    }
}
