//! `pthread.h`: threads, exclusion, waiting, once, and keys.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use crate::error::{EAGAIN, EBUSY, EDEADLK, EINVAL, ENOMEM, EPERM, ESRCH, ETIMEDOUT};
use crate::export::Export;
use crate::lock::{self, Lock};
use crate::system::{ForkHandler, system};
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
    pthread_cond_clockwait,
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
    __pthread_key_create = pthread_key_create,
    pthread_key_delete,
    pthread_getspecific,
    pthread_setspecific,
    pthread_self,
    pthread_equal,
    pthread_create,
    pthread_join,
    pthread_detach,
    __cxa_thread_atexit_impl,
    __libc_single_threaded = &raw const SINGLE_THREADED,
    __register_atfork,
    pthread_atfork,
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
    wait_until(condition, mutex, clock, until)
}

unsafe extern "C" fn pthread_cond_clockwait(
    condition: &Condition,
    mutex: &Mutex,
    clock: c_int,
    until: &TimeSpec,
) -> c_int {
    if !matches!(clock, CLOCK_MONOTONIC | CLOCK_REALTIME) {
        return EINVAL;
    }
    wait_until(condition, mutex, clock, until)
}

fn wait_until(condition: &Condition, mutex: &Mutex, clock: c_int, until: &TimeSpec) -> c_int {
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

/// Destructors of thread-local variables, by thread, with the variables.
static VARIABLES: Lock<BTreeMap<u32, Vec<(DestroyVariable, Variable)>>> = Lock::new(BTreeMap::new());

type DestroyVariable = unsafe extern "C" fn(*mut c_void);

struct Variable(*mut c_void);

// SAFETY: only the thread whose variable it is takes it out.
unsafe impl Send for Variable {}

/// Has a thread-local variable destroyed at the end of its thread. The object of the destructor stays
/// loaded.
unsafe extern "C" fn __cxa_thread_atexit_impl(
    destructor: DestroyVariable,
    variable: *mut c_void,
    object: *const c_void,
) -> c_int {
    (system().keep)(object);
    let mut all = VARIABLES.lock();
    let mine = all.entry((system().thread)()).or_default();
    if mine.try_reserve(1).is_err() {
        return -1;
    }
    mine.push((destructor, Variable(variable)));
    0
}

/// Registers functions of the object that has the address `object`, which stays loaded. A program's
/// own `pthread_atfork`, which its C compiler links into it, calls it (glibc, libc_nonshared.a).
unsafe extern "C" fn __register_atfork(
    prepare: Option<ForkHandler>,
    parent: Option<ForkHandler>,
    child: Option<ForkHandler>,
    object: *const c_void,
) -> c_int {
    (system().keep)(object);
    if (system().at_fork)([prepare, parent, child]) { 0 } else { ENOMEM }
}

unsafe extern "C" fn pthread_atfork(
    prepare: Option<ForkHandler>,
    parent: Option<ForkHandler>,
    child: Option<ForkHandler>,
) -> c_int {
    for handler in [prepare, parent, child].into_iter().flatten() {
        (system().keep)(handler as *const c_void);
    }
    if (system().at_fork)([prepare, parent, child]) { 0 } else { ENOMEM }
}

/// Destroys the calling thread's variables, last first.
pub(crate) fn destroy_variables() {
    let me = (system().thread)();
    loop {
        let last = VARIABLES.lock().get_mut(&me).and_then(Vec::pop);
        let Some((destructor, Variable(variable))) = last else { break };
        // SAFETY: as C++'s ABI demands. It may register others.
        unsafe { destructor(variable) };
    }
    VARIABLES.lock().remove(&me);
}

/// Runs the destructors of the calling thread's variables and values. The image calls this at the
/// end of a thread.
pub fn thread_ended() {
    let me = (system().thread)();
    destroy_variables();
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

/// A thread that [`pthread_create`] has made. It has a number of its own (`pthread_t`), which no
/// later thread has: another thread may ask for it after its end.
struct Thread {
    /// 1 when it has ended.
    ended: AtomicU32,
    /// The value that its function has returned.
    result: AtomicPtr<c_void>,
    /// Nobody will ask for it.
    detached: AtomicBool,
    /// Its number for the image, while it runs.
    runs_as: AtomicU32,
}

struct Threads {
    last: c_ulong,
    all: BTreeMap<c_ulong, Arc<Thread>>,
}

static THREADS: Lock<Threads> = Lock::new(Threads { last: 0, all: BTreeMap::new() });

/// Numbers of threads that the image has made are below this one.
const FIRST: c_ulong = 1 << 32;

/// `__libc_single_threaded`, a `char`: false, because the image makes threads as well.
static SINGLE_THREADED: AtomicU64 = AtomicU64::new(0);

type Start = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

unsafe extern "C" fn pthread_self() -> c_ulong {
    let me = (system().thread)();
    let threads = THREADS.lock();
    let is_me = |thread: &Thread| thread.runs_as.load(Ordering::Relaxed) == me;
    let mine = threads.all.iter().find(|(_, thread)| is_me(thread)).map(|(number, _)| *number);
    mine.unwrap_or(c_ulong::from(me))
}

/// Makes a thread. Attributes are not looked at: its stack has the size that the image gives it.
unsafe extern "C" fn pthread_create(
    place: *mut c_ulong,
    _attributes: *const c_void,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let thread = Arc::new(Thread {
        ended: AtomicU32::new(0),
        result: AtomicPtr::new(ptr::null_mut()),
        detached: AtomicBool::new(false),
        runs_as: AtomicU32::new(0),
    });
    let number = {
        let mut threads = THREADS.lock();
        threads.last += 1;
        let number = FIRST + threads.last;
        threads.all.insert(number, thread.clone());
        number
    };
    // The new thread may read it before this function returns.
    // SAFETY: as C demands.
    unsafe { place.write(number) };
    let argument = AtomicPtr::new(argument);
    let body = move || {
        thread.runs_as.store((system().thread)(), Ordering::Relaxed);
        // SAFETY: as C demands.
        let result = unsafe { start(argument.into_inner()) };
        thread_ended();
        let mut threads = THREADS.lock();
        thread.runs_as.store(0, Ordering::Relaxed);
        thread.result.store(result, Ordering::Relaxed);
        thread.ended.store(1, Ordering::Release);
        if thread.detached.load(Ordering::Relaxed) {
            threads.all.remove(&number);
        }
        drop(threads);
        (system().wake)(&thread.ended, usize::MAX);
    };
    if (system().spawn)(Box::new(body)) {
        return 0;
    }
    THREADS.lock().all.remove(&number);
    EAGAIN
}

unsafe extern "C" fn pthread_join(number: c_ulong, place: *mut *mut c_void) -> c_int {
    let Some(thread) = THREADS.lock().all.get(&number).cloned() else { return ESRCH };
    if thread.detached.load(Ordering::Relaxed) {
        return EINVAL;
    }
    if thread.runs_as.load(Ordering::Relaxed) == (system().thread)() {
        return EDEADLK;
    }
    while thread.ended.load(Ordering::Acquire) == 0 {
        (system().wait)(&thread.ended, 0, None);
    }
    THREADS.lock().all.remove(&number);
    if !place.is_null() {
        // SAFETY: as C demands.
        unsafe { place.write(thread.result.load(Ordering::Relaxed)) };
    }
    0
}

unsafe extern "C" fn pthread_detach(number: c_ulong) -> c_int {
    let mut threads = THREADS.lock();
    let Some(thread) = threads.all.get(&number) else { return ESRCH };
    if thread.detached.swap(true, Ordering::Relaxed) {
        return EINVAL;
    }
    if thread.ended.load(Ordering::Acquire) != 0 {
        threads.all.remove(&number);
    }
    0
}

unsafe extern "C" fn pthread_equal(one: c_ulong, other: c_ulong) -> c_int {
    c_int::from(one == other)
}

unsafe extern "C" fn sched_yield() -> c_int {
    (system().yield_now)();
    0
}

unsafe extern "C" fn __sched_cpucount(size: usize, set: *const u8) -> c_int {
    // SAFETY: as C demands.
    unsafe { crate::raw::slice(set, size) }.iter().map(|octet| octet.count_ones() as c_int).sum()
}
