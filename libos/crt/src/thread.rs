//! `pthread.h`, for libraries that several threads call: exclusion, waiting, once, and keys. Only
//! the image makes threads.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use core::time::Duration;

use crate::error::{EAGAIN, EBUSY, EDEADLK, EINVAL, EPERM, ESRCH, ETIMEDOUT};
use crate::export::Export;
use crate::lock::{self, Lock};
use crate::system::system;
use crate::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, TimeSpec, read_clock};

pub(crate) const PTHREAD: &[Export] = exports![
    pthread_mutex_init,
    pthread_mutex_destroy = nothing,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    pthread_mutexattr_init = attribute_init,
    pthread_mutexattr_destroy = nothing,
    pthread_mutexattr_settype = attribute_set,
    pthread_mutexattr_gettype = attribute_get,
    pthread_cond_init,
    pthread_cond_destroy = nothing,
    pthread_cond_wait,
    pthread_cond_timedwait,
    pthread_cond_signal,
    pthread_cond_broadcast,
    pthread_condattr_init = attribute_init,
    pthread_condattr_destroy = nothing,
    pthread_condattr_setclock = attribute_set,
    pthread_rwlock_init,
    pthread_rwlock_destroy = nothing,
    pthread_rwlock_rdlock,
    pthread_rwlock_tryrdlock,
    pthread_rwlock_wrlock,
    pthread_rwlock_trywrlock,
    pthread_rwlock_unlock,
    pthread_once,
    pthread_key_create,
    pthread_key_delete,
    pthread_getspecific,
    pthread_setspecific,
    pthread_self,
    pthread_equal,
    pthread_create,
    pthread_join = no_thread,
    pthread_detach = no_thread,
    pthread_atfork = nothing,
    sched_yield,
    sched_getaffinity = crate::file::no,
    __sched_cpucount,
];

unsafe extern "C" fn nothing() -> c_int {
    0
}

/// Initialises an attribute: one number; glibc's has at least four octets.
unsafe extern "C" fn attribute_init(attribute: *mut c_int) -> c_int {
    // SAFETY: as C demands.
    unsafe { attribute.write(0) };
    0
}

unsafe extern "C" fn attribute_set(attribute: *mut c_int, value: c_int) -> c_int {
    // SAFETY: as C demands.
    unsafe { attribute.write(value) };
    0
}

unsafe extern "C" fn attribute_get(attribute: *const c_int, value: *mut c_int) -> c_int {
    // SAFETY: as C demands.
    unsafe { value.write(attribute.read()) };
    0
}

/// # Safety
/// The attribute is null or was initialised.
unsafe fn attribute(attribute: *const c_int) -> c_int {
    if attribute.is_null() {
        return 0;
    }
    // SAFETY: passed on to the caller.
    unsafe { attribute.read() }
}

/// The first 20 octets of glibc's 40. Its static initialisers set the kind; all else is 0.
#[repr(C)]
pub(crate) struct Mutex {
    word: AtomicU32,
    /// Number of times that the owner holds it.
    count: AtomicU32,
    owner: AtomicU32,
    users: u32,
    kind: AtomicI32,
}

const RECURSIVE: c_int = 1;
const ERROR_CHECK: c_int = 2;

impl Mutex {
    /// Takes the mutex; returns 0 or the error number.
    fn take(&self, wait: bool) -> c_int {
        let me = (system().thread)();
        if self.owner.load(Ordering::Relaxed) == me {
            match self.kind.load(Ordering::Relaxed) {
                RECURSIVE => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return 0;
                }
                ERROR_CHECK if wait => return EDEADLK,
                _ => {}
            }
        }
        if wait {
            lock::acquire(&self.word);
        } else if !lock::try_acquire(&self.word) {
            return EBUSY;
        }
        self.owner.store(me, Ordering::Relaxed);
        self.count.store(1, Ordering::Relaxed);
        0
    }

    fn give(&self) -> c_int {
        if self.kind.load(Ordering::Relaxed) != 0 && self.owner.load(Ordering::Relaxed) != (system().thread)() {
            return EPERM;
        }
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.owner.store(0, Ordering::Relaxed);
            lock::release(&self.word);
        }
        0
    }
}

unsafe extern "C" fn pthread_mutex_init(place: *mut Mutex, kind: *const c_int) -> c_int {
    // SAFETY: as C demands.
    let kind = unsafe { attribute(kind) };
    // SAFETY: as C demands.
    unsafe {
        place.write(Mutex {
            word: AtomicU32::new(0),
            count: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            users: 0,
            kind: AtomicI32::new(kind),
        });
    }
    0
}

unsafe extern "C" fn pthread_mutex_lock(mutex: &Mutex) -> c_int {
    mutex.take(true)
}

unsafe extern "C" fn pthread_mutex_trylock(mutex: &Mutex) -> c_int {
    mutex.take(false)
}

unsafe extern "C" fn pthread_mutex_unlock(mutex: &Mutex) -> c_int {
    mutex.give()
}

/// The first 8 octets of glibc's 48, which are 0 initially.
#[repr(C)]
pub(crate) struct Condition {
    /// Changes with each signal.
    turn: AtomicU32,
    clock: c_int,
}

unsafe extern "C" fn pthread_cond_init(place: *mut Condition, clock: *const c_int) -> c_int {
    // SAFETY: as C demands.
    let clock = unsafe { attribute(clock) };
    // SAFETY: as C demands.
    unsafe { place.write(Condition { turn: AtomicU32::new(0), clock }) };
    0
}

/// One wait, which may end early, as C allows. A recursive mutex is released completely and taken
/// back as often.
fn wait(condition: &Condition, mutex: &Mutex, limit: Option<Duration>) -> c_int {
    let turn = condition.turn.load(Ordering::Relaxed);
    let depth = mutex.count.swap(1, Ordering::Relaxed);
    let given = mutex.give();
    if given != 0 {
        mutex.count.store(depth, Ordering::Relaxed);
        return given;
    }
    (system().wait)(&condition.turn, turn, limit);
    mutex.take(true);
    mutex.count.store(depth, Ordering::Relaxed);
    0
}

unsafe extern "C" fn pthread_cond_wait(condition: &Condition, mutex: &Mutex) -> c_int {
    wait(condition, mutex, None)
}

unsafe extern "C" fn pthread_cond_timedwait(condition: &Condition, mutex: &Mutex, until: &TimeSpec) -> c_int {
    let clock = if condition.clock == CLOCK_MONOTONIC { CLOCK_MONOTONIC } else { CLOCK_REALTIME };
    let Some(until) = until.duration() else {
        return EINVAL;
    };
    let left = || until.saturating_sub(read_clock(clock).unwrap_or_default());
    if left().is_zero() {
        return ETIMEDOUT;
    }
    let turn = condition.turn.load(Ordering::Relaxed);
    let result = wait(condition, mutex, Some(left()));
    let signalled = condition.turn.load(Ordering::Relaxed) != turn;
    if result == 0 && !signalled && left().is_zero() { ETIMEDOUT } else { result }
}

unsafe extern "C" fn pthread_cond_signal(condition: &Condition) -> c_int {
    condition.turn.fetch_add(1, Ordering::Relaxed);
    (system().wake)(&condition.turn, 1);
    0
}

unsafe extern "C" fn pthread_cond_broadcast(condition: &Condition) -> c_int {
    condition.turn.fetch_add(1, Ordering::Relaxed);
    (system().wake)(&condition.turn, usize::MAX);
    0
}

/// The first 4 octets of glibc's 56, which are 0 initially: the number of readers, or [`WRITER`].
type ReadWrite = AtomicU32;

const WRITER: u32 = u32::MAX;

fn read(lock: &ReadWrite) -> bool {
    lock.fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| (word < WRITER - 1).then(|| word + 1)).is_ok()
}

fn write(lock: &ReadWrite) -> bool {
    lock.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn until(lock: &ReadWrite, taken: fn(&ReadWrite) -> bool) -> c_int {
    loop {
        let word = lock.load(Ordering::Relaxed);
        if taken(lock) {
            return 0;
        }
        if word != 0 {
            (system().wait)(lock, word, None);
        }
    }
}

unsafe extern "C" fn pthread_rwlock_init(place: *mut ReadWrite, _attribute: *const c_int) -> c_int {
    // SAFETY: as C demands.
    unsafe { place.write(AtomicU32::new(0)) };
    0
}

unsafe extern "C" fn pthread_rwlock_rdlock(lock: &ReadWrite) -> c_int {
    until(lock, read)
}

unsafe extern "C" fn pthread_rwlock_tryrdlock(lock: &ReadWrite) -> c_int {
    if read(lock) { 0 } else { EBUSY }
}

unsafe extern "C" fn pthread_rwlock_wrlock(lock: &ReadWrite) -> c_int {
    until(lock, write)
}

unsafe extern "C" fn pthread_rwlock_trywrlock(lock: &ReadWrite) -> c_int {
    if write(lock) { 0 } else { EBUSY }
}

unsafe extern "C" fn pthread_rwlock_unlock(lock: &ReadWrite) -> c_int {
    if lock.load(Ordering::Relaxed) == WRITER {
        lock.store(0, Ordering::Release);
    } else {
        lock.fetch_sub(1, Ordering::Release);
    }
    (system().wake)(lock, usize::MAX);
    0
}

const RUNNING: u32 = 1;
const DONE: u32 = 2;

unsafe extern "C" fn pthread_once(once: &AtomicU32, function: unsafe extern "C" fn()) -> c_int {
    loop {
        match once.compare_exchange(0, RUNNING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: as C demands.
                unsafe { function() };
                once.store(DONE, Ordering::Release);
                (system().wake)(once, usize::MAX);
                return 0;
            }
            Err(DONE) => return 0,
            Err(other) => (system().wait)(once, other, None),
        }
    }
}

type Destructor = Option<unsafe extern "C" fn(*mut c_void)>;

struct Keys {
    next: c_uint,
    destructors: BTreeMap<c_uint, Destructor>,
    /// The values by key and thread.
    values: BTreeMap<(c_uint, u32), *mut c_void>,
}

// SAFETY: the values belong to the threads, and each thread gets only its own back.
unsafe impl Send for Keys {}

static KEYS: Lock<Keys> = Lock::new(Keys { next: 0, destructors: BTreeMap::new(), values: BTreeMap::new() });

unsafe extern "C" fn pthread_key_create(place: *mut c_uint, destructor: Destructor) -> c_int {
    let mut keys = KEYS.lock();
    let key = keys.next;
    let Some(next) = key.checked_add(1) else {
        return EAGAIN;
    };
    keys.next = next;
    keys.destructors.insert(key, destructor);
    // SAFETY: as C demands.
    unsafe { place.write(key) };
    0
}

unsafe extern "C" fn pthread_key_delete(key: c_uint) -> c_int {
    let mut keys = KEYS.lock();
    keys.values.retain(|(of, _), _| *of != key);
    if keys.destructors.remove(&key).is_some() { 0 } else { EINVAL }
}

unsafe extern "C" fn pthread_getspecific(key: c_uint) -> *mut c_void {
    KEYS.lock().values.get(&(key, (system().thread)())).copied().unwrap_or(ptr::null_mut())
}

unsafe extern "C" fn pthread_setspecific(key: c_uint, value: *mut c_void) -> c_int {
    let mut keys = KEYS.lock();
    if !keys.destructors.contains_key(&key) {
        return EINVAL;
    }
    let place = (key, (system().thread)());
    if value.is_null() {
        keys.values.remove(&place);
    } else {
        keys.values.insert(place, value);
    }
    0
}

/// Runs the destructors of the calling thread's values. The image calls this at the end of a
/// thread.
pub fn thread_ended() {
    let me = (system().thread)();
    // A destructor may set values anew. POSIX asks for a bounded number of rounds.
    for _ in 0..4 {
        let mut keys = KEYS.lock();
        let mine: Vec<_> = keys.values.extract_if(.., |(_, thread), _| *thread == me).collect();
        let due: Vec<_> =
            mine.iter().map(|((key, _), value)| (keys.destructors.get(key).copied().flatten(), *value)).collect();
        drop(keys);
        if due.is_empty() {
            return;
        }
        for (destructor, value) in due {
            if let Some(destructor) = destructor {
                // SAFETY: as C demands of the key's creator.
                unsafe { destructor(value) };
            }
        }
    }
    // The next thread with this number finds none of them.
    KEYS.lock().values.retain(|(_, thread), _| *thread != me);
}

unsafe extern "C" fn pthread_self() -> c_ulong {
    c_ulong::from((system().thread)())
}

unsafe extern "C" fn pthread_equal(one: c_ulong, other: c_ulong) -> c_int {
    c_int::from(one == other)
}

unsafe extern "C" fn pthread_create() -> c_int {
    EAGAIN
}

unsafe extern "C" fn no_thread() -> c_int {
    ESRCH
}

unsafe extern "C" fn sched_yield() -> c_int {
    (system().yield_now)();
    0
}

unsafe extern "C" fn __sched_cpucount(size: usize, set: *const u8) -> c_int {
    // SAFETY: as C demands.
    unsafe { crate::raw::slice(set, size) }.iter().map(|octet| octet.count_ones() as c_int).sum()
}
