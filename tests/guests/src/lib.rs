//! The common part of the test guests: the verdict, the argument, and a source of repeatable
//! numbers.

#![no_std]
#![forbid(unsafe_code)]

use zooid::process::{self, PvmId, Status};
use zooid::{env, println, thread, xenstore};

/// Ends the test well.
pub fn success() {
    println!("Test result: SUCCESS");
}

/// Fails the test: its subject is wrong, for the printed reason.
#[macro_export]
macro_rules! failure {
    ($($why:tt)*) => {{
        zooid::println!("Test result: FAILURE: {}", format_args!($($why)*));
        zooid::process::exit(1)
    }};
}

/// Ends the test as an error: the test itself is wrong, for the printed reason.
#[macro_export]
macro_rules! error {
    ($($why:tt)*) => {{
        zooid::println!("Test result: ERROR: {}", format_args!($($why)*));
        zooid::process::exit(2)
    }};
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            $crate::failure!("{} is not so ({}:{})", stringify!($condition), file!(), line!());
        }
    };
}

/// Fails the test unless both values are the same.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    $crate::failure!("{} is {left:?}, not {right:?} ({}:{})", stringify!($left), file!(), line!());
                }
            }
        }
    };
}

/// The value in an `Ok`; fails the test otherwise.
#[macro_export]
macro_rules! expect {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => $crate::failure!("{}: {error:?} ({}:{})", stringify!($result), file!(), line!()),
        }
    };
}

/// The guest's one argument, which selects its act.
pub fn argument() -> &'static str {
    match env::args().next() {
        Some(word) => word,
        None => error!("this guest wants an argument: set extra=\"-- WORD\""),
    }
}

/// Waits for one child; fails the test unless it ended with code 0.
pub fn reap(child: PvmId) {
    match expect!(process::waitpid(Some(child), false)).map(|ended| ended.status) {
        Some(Status::Exited(0)) => {}
        status => failure!("child {child}: {status:?}"),
    }
}

/// Waits until the kernel's own threads have started and wait, so that they allocate nothing later.
pub fn settle() {
    // xenstored answers in the order of the requests: each round lets them get ahead by one at
    // least.
    for _ in 0..4 {
        thread::yield_now();
        if let Err(error) = xenstore::read("domid") {
            error!("{error}");
        }
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A value for garbage: often one that may mean something.
    pub fn garbage(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => self.below(16) as u32,
            2 => u32::MAX,
            _ => self.next_u64() as u32,
        }
    }

    /// The next number, from 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}
