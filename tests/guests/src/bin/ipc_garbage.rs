//! A hostile relative: a child writes garbage into every page that it shares with its parent, at
//! any moment. The parent gets errors, or wrong contents, on these objects, and nothing else: it
//! neither crashes nor hangs, and its other objects go on working.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use test_guests::{Random, argument, check, check_eq, expect, success};
use xen_abi::PAGE_SIZE;
use xen_abi::pte::PteFlags;
use zooid::ipc::{self, Attributes, MessageQueue, Semaphore, SharedMemory};
use zooid::process::{self, PvmId};
use zooid::{println, thread, time};
use zooid_kernel::mmu;
use zooid_kernel::shared::SharedPages;

zooid::main!(main);

/// The length of a round of garbage.
const ROUND: Duration = Duration::from_millis(300);
const SHORT: Duration = Duration::from_millis(2);
/// Zone of these pages, and the mark of joint ones in an entry (libos/memory).
const ZONE: zooid_kernel::mmu::Zone = zooid_kernel::mmu::Zone::Device;
const JOINT: PteFlags = PteFlags::AVAILABLE_2;

fn main() {
    let seed: u64 = expect!(argument().parse());
    let mut outcomes = [0_u32; 2];
    for round in 0..10 {
        let (reader, writer) = expect!(ipc::pipe());
        let queue = expect!(MessageQueue::new(Attributes { messages: 8, size: 100 }));
        let semaphore = expect!(Semaphore::new(1));
        let memory = expect!(SharedMemory::new(10_000));
        let hostile = match expect!(process::fork()) {
            None => scribble(seed + round),
            Some(child) => child,
        };
        let end = time::uptime() + ROUND;
        let mut buffer = [0; 100];
        let mut note = |good: bool| outcomes[usize::from(good)] += 1;
        while time::uptime() < end {
            note(writer.write_timeout(&[7; 100], SHORT).is_ok());
            note(reader.read_timeout(&mut buffer, SHORT).is_ok());
            note(queue.send_timeout(&buffer, 3, SHORT).is_ok());
            note(queue.receive_timeout(&mut buffer, SHORT).is_ok_and(|(length, _)| length <= 100));
            note(semaphore.wait_timeout(SHORT).is_ok());
            note(semaphore.post().is_ok());
            memory.read(0, &mut buffer);
            check!(queue.len() <= 1024 && memory.len() == 10_000);
        }
        // The objects that it shares with others are whole, meanwhile and afterwards.
        honest();
        let _ = process::kill(hostile, 9);
        reap(hostile);
        drop((reader, writer, queue, semaphore, memory));
        honest();
    }
    println!("{} calls failed, {} did not", outcomes[0], outcomes[1]);
    success();
}

fn reap(child: PvmId) {
    let ended = expect!(process::waitpid(Some(child), false));
    check_eq!(ended.map(|ended| ended.id), Some(child));
}

/// Sends data to a child through a new pipe, and gets it back through another one.
fn honest() {
    let (down, to_child) = expect!(ipc::pipe());
    let (up, to_parent) = expect!(ipc::pipe());
    let mut buffer = [0; 100];
    let child = match expect!(process::fork()) {
        Some(child) => child,
        None => {
            let count = expect!(down.read(&mut buffer));
            expect!(to_parent.write_all(&buffer[..count]));
            process::exit(0)
        }
    };
    expect!(to_child.write_all(b"there and back"));
    let count = expect!(up.read_timeout(&mut buffer, Duration::from_secs(10)));
    check_eq!(&buffer[..count], b"there and back");
    reap(child);
}

/// Writes garbage into all joint pages, until somebody ends it.
fn scribble(seed: u64) -> ! {
    let mut pages = Vec::with_capacity(1000);
    mmu::for_each_page(ZONE, |address, entry| {
        if entry.flags().contains(JOINT | PteFlags::WRITABLE) && pages.len() < pages.capacity() {
            pages.push(address);
        }
    });
    // Two pipes' worth and more.
    check!(pages.len() > 20);
    let mut random = Random::new(seed);
    loop {
        let page = pages[random.below(pages.len() as u64) as usize];
        // SAFETY: a mapped page that several write all the time; it stays mapped, because this pVM
        // drops nothing.
        let page = unsafe { SharedPages::new(page as *mut u8, 1) };
        for _ in 0..64 {
            let at = random.below(PAGE_SIZE as u64 / 4) as usize * 4;
            page.write_u32(at, random.garbage());
        }
        if random.below(16) == 0 {
            thread::sleep(Duration::from_micros(random.below(500)));
        }
    }
}
