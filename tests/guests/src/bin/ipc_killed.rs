//! A family that makes, maps, opens and removes objects, forks and ends, while pvmd may be killed
//! at any moment. Each request is answered once, an object with a name is neither lost nor made
//! twice, and shared contents stay whole. It runs once, or (`without_end`) until there is
//! `data/stop`.

#![no_std]
#![no_main]

use core::fmt::Debug;
use core::time::Duration;

use test_guests::{argument, check_eq, error, expect, failure, success};
use zooid::ipc::{self, Error, How, PipeReader, PipeWriter, SharedMemory};
use zooid::process::{self, PvmId, Status};
use zooid::{println, thread, xenstore};
use zooid_fork::objects;

zooid::main!(main);

const EXCLUSIVE: How = How { create: true, exclusive: true };
const OPEN: How = How { create: false, exclusive: false };
/// A size above the reach of one page table, so that it is mapped by more than one request.
const SIZE: usize = 520 * 4096;
/// The number of requests that may fail for one that succeeds.
const FAILURES: u32 = 20;

fn main() {
    let without_end = argument() == "without_end";
    for round in 1_u32.. {
        share(round);
        if !without_end || xenstore::read("data/stop").is_ok() {
            println!("{round} rounds");
            break;
        }
    }
    success();
}

fn share(round: u32) {
    // A daemon that comes back knows the named objects: none of these requests fails.
    let memory = expect!(SharedMemory::open("killed", EXCLUSIVE, SIZE));
    check_eq!(SharedMemory::open("killed", EXCLUSIVE, SIZE).err(), Some(Error::Exists));
    memory.write(SIZE - 4, &round.to_le_bytes());
    // An object without a name is forgotten if it was not wholly mapped.
    let (answer, reply): (PipeReader, PipeWriter) = somehow(ipc::pipe);
    let child = somehow(process::fork);
    let Some(child) = child else { open_and_answer(&reply) };
    drop(reply);
    let Some(own) = objects::member() else { failure!("no member") };
    expect!(objects::relay(own));
    let mut octets = [0; 4];
    check_eq!(expect!(answer.read(&mut octets)), 4);
    check_eq!(u32::from_le_bytes(octets), round + 1);
    reap(child);
    // The owner of the other end has ended, and this pVM was told.
    check_eq!(expect!(answer.read(&mut octets)), 0);
    memory.read(SIZE - 4, &mut octets);
    check_eq!(u32::from_le_bytes(octets), !round);
    expect!(ipc::unlink("killed"));
    check_eq!(ipc::unlink("killed"), Err(Error::NotFound));
    check_eq!(SharedMemory::open("killed", OPEN, 0).err(), Some(Error::NotFound));
}

/// The body of the child.
fn open_and_answer(reply: &PipeWriter) -> ! {
    let memory = expect!(SharedMemory::open("killed", OPEN, 0));
    check_eq!(memory.len(), SIZE);
    let mut octets = [0; 4];
    memory.read(SIZE - 4, &mut octets);
    let round = u32::from_le_bytes(octets);
    memory.write(SIZE - 4, &(!round).to_le_bytes());
    expect!(reply.write_all(&(round + 1).to_le_bytes()));
    process::exit(7)
}

fn reap(child: PvmId) {
    match process::waitpid(Some(child), false) {
        Ok(Some(ended)) => check_eq!(ended.status, Status::Exited(7)),
        other => failure!("wait: {other:?}"),
    }
}

/// Repeats `what` until it succeeds.
fn somehow<T, E: Debug>(mut what: impl FnMut() -> Result<T, E>) -> T {
    let mut failures = 0;
    loop {
        match what() {
            Ok(value) => return value,
            Err(reason) => println!("refused: {reason:?}"),
        }
        failures += 1;
        if failures == FAILURES {
            error!("nothing succeeds");
        }
        thread::sleep(Duration::from_millis(100));
    }
}
