//! Property: parents, children and grandchildren write at random around forks, and
//! each of them sees its own memory as a model says.
//!
//! The model is the history of writes: a list of seeds, each for a batch of writes
//! to random places. A pVM's memory must be what its own history, replayed from nothing, gives. A
//! child's history begins with its parent's.

#![feature(thread_local)]
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use test_guests::{Random, argument, check, expect, failure, reap, success};
use zooid::process::{self, PvmId};
use zooid::{println, thread};

zooid::main!(main);

/// Words of each kind of memory.
const HEAP: usize = 200 * 512;
const STATIC: usize = 8 * 512;
const STACK: usize = 3 * 512;
const LOCAL: usize = 32;
const ALL: usize = HEAP + STATIC + STACK + LOCAL;
/// Writes in a batch.
const BATCH: u64 = 300;
/// The depth of the tree of children.
const DEPTH: u32 = 3;

static VARIABLES: [AtomicU64; STATIC] = [const { AtomicU64::new(0) }; STATIC];
#[thread_local]
static LOCALS: [Cell<u64>; LOCAL] = [const { Cell::new(0) }; LOCAL];

/// One pVM's memory of all kinds, and the history of its writes.
struct World<'a> {
    heap: Vec<u64>,
    stack: &'a mut [u64; STACK],
    history: Vec<u64>,
    random: Random,
}

fn main() {
    let seed: u64 = expect!(argument().parse());
    let mut stack = [0; STACK];
    let mut world = World { heap: vec![0; HEAP], stack: &mut stack, history: Vec::new(), random: Random::new(seed) };
    live(&mut world, 0);
    println!("batches of writes: {}", world.history.len());
    success();
}

/// Writes, forks, checks and waits, in random order.
fn live(world: &mut World<'_>, depth: u32) {
    let mut children: Vec<PvmId> = Vec::new();
    for _ in 0..if depth == 0 { 24 } else { 6 } {
        match world.random.below(6) {
            0 | 1 => world.write(),
            2 => world.check(),
            3 if !children.is_empty() => {
                let which = world.random.below(children.len() as u64) as usize;
                reap(children.swap_remove(which));
            }
            _ if depth < DEPTH && children.len() < 3 => match expect!(process::fork()) {
                Some(child) => children.push(child),
                None => {
                    // Its own order of events from here on.
                    let id = expect!(process::id().ok_or("no id"));
                    world.random = Random::new(u64::from(id.raw()) ^ world.random.next_u64());
                    world.check();
                    live(world, depth + 1);
                    process::exit(0)
                }
            },
            _ => thread::yield_now(),
        }
    }
    world.write();
    world.check();
    children.into_iter().for_each(reap);
    world.check();
}

impl World<'_> {
    /// Writes one more batch.
    fn write(&mut self) {
        let seed = self.random.next_u64();
        self.history.push(seed);
        let mut random = Random::new(seed);
        for _ in 0..BATCH {
            let (at, value) = (random.below(ALL as u64) as usize, random.next_u64());
            self.set(at, value);
        }
    }

    fn set(&mut self, at: usize, value: u64) {
        match at {
            0..HEAP => self.heap[at] = value,
            _ if at < HEAP + STATIC => VARIABLES[at - HEAP].store(value, Ordering::Relaxed),
            _ if at < HEAP + STATIC + STACK => self.stack[at - HEAP - STATIC] = value,
            _ => LOCALS[at - HEAP - STATIC - STACK].set(value),
        }
    }

    fn get(&self, at: usize) -> u64 {
        match at {
            0..HEAP => self.heap[at],
            _ if at < HEAP + STATIC => VARIABLES[at - HEAP].load(Ordering::Relaxed),
            _ if at < HEAP + STATIC + STACK => self.stack[at - HEAP - STATIC],
            _ => LOCALS[at - HEAP - STATIC - STACK].get(),
        }
    }

    /// Compares all memory with the replayed history.
    fn check(&self) {
        let mut model = vec![0_u64; ALL];
        for seed in &self.history {
            let mut random = Random::new(*seed);
            for _ in 0..BATCH {
                let (at, value) = (random.below(ALL as u64) as usize, random.next_u64());
                model[at] = value;
            }
        }
        let wrong = (0..ALL).find(|at| self.get(*at) != model[*at]);
        if let Some(at) = wrong {
            failure!("word {at} of {ALL} is {:#x}, not {:#x}", self.get(at), model[at]);
        }
        check!(!self.heap.is_empty());
    }
}
