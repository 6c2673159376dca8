//! The rest of `stdlib.h`: order, the environment, random numbers; and parts of `signal.h`.

use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int, c_uint};
use core::ptr;
use core::sync::atomic::AtomicPtr;

use crate::error::{self, EINVAL};
use crate::exit::abort;
use crate::export::Export;
use crate::file;
use crate::lock::Lock;
use crate::raw;
use crate::sort::{bsearch, qsort, qsort_r};
use crate::system::system;

pub(crate) const STDLIB: &[Export] = exports![
    qsort,
    qsort_r,
    bsearch,
    getenv,
    secure_getenv = getenv,
    __secure_getenv = getenv,
    setenv,
    unsetenv,
    putenv,
    environ = &raw const ENVIRON,
    __environ = &raw const ENVIRON,
    rand,
    srand,
    random = rand,
    srandom = srand,
    rand_r,
    arc4random,
    arc4random_buf,
    arc4random_uniform,
    get_nprocs,
];

pub(crate) const SIGNAL: &[Export] = exports![
    signal = no_signal,
    raise,
    sigaction = file::no,
    sigprocmask = file::no,
    sigemptyset = empty,
    sigfillset = empty,
    sigaddset = empty,
    sigdelset = empty,
    pthread_sigmask = empty
];

/// Variables set by C, and the texts returned to C. A text lives as long as C may read it, until
/// the variable is set anew. `None`: unset.
static ENVIRONMENT: Lock<BTreeMap<Vec<u8>, Option<CString>>> = Lock::new(BTreeMap::new());

/// An empty list; `getenv` has the variables.
static ENVIRON: AtomicPtr<*const u8> = AtomicPtr::new((&raw const EMPTY.0).cast_mut().cast());

struct Empty([*const u8; 1]);
// SAFETY: a null pointer, which is never changed.
unsafe impl Sync for Empty {}
static EMPTY: Empty = Empty([ptr::null()]);

pub(crate) unsafe extern "C" fn getenv(name: *const u8) -> *const c_char {
    // SAFETY: as C demands.
    let name = unsafe { raw::string(name) };
    let mut known = ENVIRONMENT.lock();
    if !known.contains_key(name) {
        let value = core::str::from_utf8(name).ok().and_then(|name| (system().environment)(name));
        let Some(value) = value.and_then(|value| CString::new(value).ok()) else {
            return ptr::null();
        };
        known.insert(name.to_vec(), Some(value));
    }
    known.get(name).and_then(Option::as_ref).map_or(ptr::null(), |value| value.as_ptr())
}

pub(crate) unsafe extern "C" fn setenv(name: *const u8, value: *const c_char, replace: c_int) -> c_int {
    // SAFETY: as C demands.
    let octets = unsafe { raw::string(name) };
    if octets.is_empty() || octets.contains(&b'=') {
        error::set(EINVAL);
        return -1;
    }
    // SAFETY: as C demands.
    if replace == 0 && !unsafe { getenv(name) }.is_null() {
        return 0;
    }
    // SAFETY: as C demands.
    let value = unsafe { CStr::from_ptr(value) };
    ENVIRONMENT.lock().insert(octets.to_vec(), Some(value.into()));
    0
}

pub(crate) unsafe extern "C" fn unsetenv(name: *const u8) -> c_int {
    // SAFETY: as C demands.
    let name = unsafe { raw::string(name) };
    ENVIRONMENT.lock().insert(name.to_vec(), None);
    0
}

pub(crate) unsafe extern "C" fn putenv(setting: *const u8) -> c_int {
    // SAFETY: as C demands.
    let octets = unsafe { raw::string(setting) };
    let (name, value) = match octets.iter().position(|octet| *octet == b'=') {
        Some(split) => (&octets[..split], CString::new(&octets[split + 1..]).ok()),
        None => (octets, None),
    };
    ENVIRONMENT.lock().insert(name.to_vec(), value);
    0
}

/// glibc's generator of 31 words (random.c, TYPE_3). The numbers are those of Linux for the same
/// seed.
struct Random {
    words: [u32; 31],
    next: usize,
}

static RANDOM: Lock<Option<Random>> = Lock::new(None);

impl Random {
    fn new(seed: u32) -> Self {
        let mut words = [0; 31];
        let mut word = seed.max(1) as i32;
        for place in &mut words {
            *place = word as u32;
            // 16807 * word modulo 2^31 - 1, by Schrage's method as in the C library, whose results
            // differ for negative seeds.
            word = 16807 * (word % 127_773) - 2836 * (word / 127_773);
            if word < 0 {
                word += i32::MAX;
            }
        }
        let mut random = Self { words, next: 3 };
        for _ in 0..310 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u32 {
        let sum = self.words[self.next].wrapping_add(self.words[(self.next + 28) % 31]);
        self.words[self.next] = sum;
        self.next = (self.next + 1) % 31;
        sum >> 1
    }
}

pub(crate) unsafe extern "C" fn rand() -> i64 {
    i64::from(RANDOM.lock().get_or_insert_with(|| Random::new(1)).next())
}

pub(crate) unsafe extern "C" fn srand(seed: c_uint) {
    *RANDOM.lock() = Some(Random::new(seed));
}

pub(crate) unsafe extern "C" fn rand_r(seed: *mut c_uint) -> c_int {
    // SAFETY: as C demands.
    let mut next = unsafe { seed.read() };
    let mut result = 0_u32;
    for (shift, modulus) in [(0, 2048), (10, 1024), (10, 1024)] {
        next = next.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        result = (result << shift) ^ ((next >> 16) % modulus);
    }
    // SAFETY: as C demands.
    unsafe { seed.write(next) };
    result as c_int
}

pub(crate) unsafe extern "C" fn arc4random() -> u32 {
    let mut octets = [0; 4];
    (system().random)(&mut octets);
    u32::from_ne_bytes(octets)
}

pub(crate) unsafe extern "C" fn arc4random_buf(to: *mut u8, count: usize) {
    // SAFETY: as C demands.
    (system().random)(unsafe { raw::slice_mut(to, count) });
}

pub(crate) unsafe extern "C" fn arc4random_uniform(bound: u32) -> u32 {
    if bound < 2 {
        return 0;
    }
    // Numbers below this would make some results likelier than others.
    let least = bound.wrapping_neg() % bound;
    loop {
        // SAFETY: always.
        let number = unsafe { arc4random() };
        if number >= least {
            return number % bound;
        }
    }
}

unsafe extern "C" fn get_nprocs() -> c_int {
    1
}

/// `SIG_ERR`.
unsafe extern "C" fn no_signal() -> isize {
    error::set(EINVAL);
    -1
}

unsafe extern "C" fn empty() -> c_int {
    0
}

unsafe extern "C" fn raise(_signal: c_int) -> c_int {
    // SAFETY: the call has no condition. Without handlers, every signal that programs raise ends
    // them.
    unsafe { abort() }
}
