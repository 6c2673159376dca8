//! Exclusion between threads, and data of each thread.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::vec::Vec;

use super::{FORK_HANDLERS, ours};
use crate::ForkHandler;

/// glibc's `pthread_mutex_t`, and the others: zeros, and a kind.
#[repr(C, align(8))]
struct Place(UnsafeCell<[c_int; 14]>);
unsafe impl Sync for Place {}

impl Place {
    const fn new(kind: c_int) -> Self {
        let mut words = [0; 14];
        words[4] = kind;
        Self(UnsafeCell::new(words))
    }
}

type On = unsafe extern "C" fn(*mut [c_int; 14]) -> c_int;
type OnTwo = unsafe extern "C" fn(*mut [c_int; 14], *mut [c_int; 14]) -> c_int;

fn call(name: &core::ffi::CStr, place: &Place) -> c_int {
    unsafe { ours::<On>(name)(place.0.get()) }
}

struct Count(UnsafeCell<u32>);
unsafe impl Sync for Count {}

#[test]
fn mutexes_and_locks_exclude() {
    for (lock, unlock, kind) in [
        (c"pthread_mutex_lock", c"pthread_mutex_unlock", 0),
        (c"pthread_mutex_lock", c"pthread_mutex_unlock", 1),
        (c"pthread_rwlock_wrlock", c"pthread_rwlock_unlock", 0),
    ] {
        let (place, count) = (Place::new(kind), Count(UnsafeCell::new(0)));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (place, count) = (&place, &count);
                    for _ in 0..2000 {
                        assert_eq!(call(lock, place), 0);
                        // Between reading and writing, other threads may run unless they are
                        // excluded.
                        let value = unsafe { count.0.get().read_volatile() };
                        if value % 64 == 0 {
                            thread::yield_now();
                        }
                        unsafe { count.0.get().write_volatile(value + 1) };
                        assert_eq!(call(unlock, place), 0);
                    }
                });
            }
        });
        assert_eq!(count.0.into_inner(), 8000);
    }
}

#[test]
fn each_kind_of_mutex_answers_its_owner() {
    let (normal, recursive, checking) = (Place::new(0), Place::new(1), Place::new(2));
    for mutex in [&normal, &recursive, &checking] {
        assert_eq!(call(c"pthread_mutex_lock", mutex), 0);
    }
    assert_eq!(call(c"pthread_mutex_trylock", &normal), 16);
    assert_eq!(call(c"pthread_mutex_lock", &recursive), 0);
    assert_eq!(call(c"pthread_mutex_lock", &checking), 35);
    thread::scope(|scope| {
        scope.spawn(|| {
            for mutex in [&recursive, &checking] {
                assert_eq!(call(c"pthread_mutex_trylock", mutex), 16);
                assert_eq!(call(c"pthread_mutex_unlock", mutex), 1);
            }
        });
    });
    assert_eq!(call(c"pthread_mutex_unlock", &recursive), 0);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call(c"pthread_mutex_trylock", &recursive), 16));
    });
    assert_eq!(call(c"pthread_mutex_unlock", &recursive), 0);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call(c"pthread_mutex_trylock", &recursive), 0));
    });
}

#[test]
fn conditions_wake_and_end_in_time() {
    let (mutex, condition, turn) = (Place::new(0), Place::new(0), AtomicU32::new(0));
    let wait = |condition: &Place, mutex: &Place| unsafe {
        ours::<OnTwo>(c"pthread_cond_wait")(condition.0.get(), mutex.0.get())
    };
    thread::scope(|scope| {
        for me in 0..2_u32 {
            let (mutex, condition, turn, wait) = (&mutex, &condition, &turn, wait);
            scope.spawn(move || {
                for round in 0..50 {
                    call(c"pthread_mutex_lock", mutex);
                    while turn.load(Ordering::Relaxed) != round * 2 + me {
                        assert_eq!(wait(condition, mutex), 0);
                    }
                    turn.fetch_add(1, Ordering::Relaxed);
                    call(if me == 0 { c"pthread_cond_signal" } else { c"pthread_cond_broadcast" }, condition);
                    call(c"pthread_mutex_unlock", mutex);
                }
            });
        }
    });
    assert_eq!(turn.into_inner(), 100);
    type Until = unsafe extern "C" fn(*mut [c_int; 14], *mut [c_int; 14], &[i64; 2]) -> c_int;
    call(c"pthread_mutex_lock", &mutex);
    let past = unsafe { ours::<Until>(c"pthread_cond_timedwait")(condition.0.get(), mutex.0.get(), &[1, 0]) };
    assert_eq!(past, 110);
    assert_eq!(call(c"pthread_mutex_unlock", &mutex), 0);
}

#[test]
fn once_is_once() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn run() {
        RUNS.fetch_add(1, Ordering::Relaxed);
    }
    let once = Place::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let once = &once;
                let function =
                    ours::<unsafe extern "C" fn(*mut [c_int; 14], unsafe extern "C" fn()) -> c_int>(c"pthread_once");
                assert_eq!(unsafe { function(once.0.get(), run) }, 0);
                assert_eq!(RUNS.load(Ordering::Relaxed), 1);
            });
        }
    });
}

#[test]
fn keys_hold_a_value_for_each_thread_and_end_it() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn ended(value: *mut c_void) {
        ENDED.fetch_add(value.addr() as u32, Ordering::Relaxed);
    }
    let mut key: c_uint = 0;
    unsafe {
        let create = ours::<unsafe extern "C" fn(&mut c_uint, unsafe extern "C" fn(*mut c_void)) -> c_int>(
            c"pthread_key_create",
        );
        assert_eq!(create(&mut key, ended), 0);
        let set = ours::<unsafe extern "C" fn(c_uint, usize) -> c_int>(c"pthread_setspecific");
        let get = ours::<unsafe extern "C" fn(c_uint) -> usize>(c"pthread_getspecific");
        assert_eq!((get(key), set(key, 1), get(key)), (0, 0, 1));
        thread::spawn(move || {
            assert_eq!((get(key), set(key, 20), get(key)), (0, 0, 20));
            crate::thread_ended();
            assert_eq!(get(key), 0);
        })
        .join()
        .unwrap();
        assert_eq!((get(key), ENDED.load(Ordering::Relaxed)), (1, 20));
        let delete = ours::<unsafe extern "C" fn(c_uint) -> c_int>(c"pthread_key_delete");
        assert_eq!((delete(key), delete(key), get(key)), (0, 22, 0));
    }
}

#[test]
fn functions_around_a_fork_are_handed_on() {
    type Handler = Option<ForkHandler>;
    unsafe extern "C" fn handler() {}
    let pthread_atfork: unsafe extern "C" fn(Handler, Handler, Handler) -> c_int = ours(c"pthread_atfork");
    let register: unsafe extern "C" fn(Handler, Handler, Handler, *const c_void) -> c_int = ours(c"__register_atfork");
    // SAFETY: the functions' types.
    unsafe {
        assert_eq!(pthread_atfork(Some(handler), None, None), 0);
        assert_eq!(register(None, None, Some(handler), ptr::null()), 0);
    }
    let handlers = FORK_HANDLERS.lock().unwrap();
    assert_eq!(
        handlers.iter().map(|all| all.map(|one| one.is_some())).collect::<Vec<_>>(),
        [[true, false, false], [false, false, true]]
    );
}
