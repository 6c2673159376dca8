/* Mutexes, condition variables and semaphores that lie in shared memory. */
#include "posix.h"

#define NAME "/zooid-objects"
#define CHILDREN 3

struct shared_state {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    sem_t semaphore;
    volatile int counter, waiting, flag;
};

static void make_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    CHECK(pthread_mutex_init(mutex, &attributes) == 0);
}

static void make_all(struct shared_state *state, unsigned value)
{
    pthread_condattr_t attributes;
    make_mutex(&state->mutex);
    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_cond_init(&state->condition, &attributes) == 0);
    CHECK(sem_init(&state->semaphore, 1, value) == 0);
}

static struct shared_state *new_state(unsigned value)
{
    struct shared_state *state = shared(sizeof *state);
    make_all(state, value);
    return state;
}

static void all_end_well(const pid_t *children)
{
    for (int number = 0; number < CHILDREN; number++)
        ends_well(children[number]);
}

/* "PTHREAD_PROCESS_SHARED: a mutex may be operated upon by any thread that has access to the memory where it is allocated." */
static void count_with_mutex(struct shared_state *state)
{
    enum { ROUNDS = 300 };
    pid_t children[CHILDREN];
    for (int number = 0; number < CHILDREN; number++) {
        children[number] = start();
        if (children[number] == 0) {
            for (int round = 0; round < ROUNDS; round++) {
                CHECK(pthread_mutex_lock(&state->mutex) == 0);
                int seen = state->counter;
                if (round % 50 == 0)
                    pause_ms(1);
                state->counter = seen + 1;
                CHECK(pthread_mutex_unlock(&state->mutex) == 0);
            }
            _exit(0);
        }
    }
    all_end_well(children);
    CHECK(state->counter == CHILDREN * ROUNDS);
}

static void mutex_excludes_other_processes(void)
{
    count_with_mutex(new_state(0));
}

/* The same in memory with a name, which need not be at the same address. */
static void mutex_in_named_memory_excludes_other_processes(void)
{
    int memory = open_memory(NAME, O_CREAT | O_EXCL, sizeof(struct shared_state));
    CHECK(memory >= 0);
    struct shared_state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CHECK(state != MAP_FAILED);
    make_all(state, 0);
    pid_t child = start();
    if (child == 0) {
        int again = open_memory(NAME, 0, 0);
        CHECK(again >= 0);
        struct shared_state *other = mmap(NULL, sizeof *other, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
        CHECK(other != MAP_FAILED);
        CHECK(pthread_mutex_lock(&other->mutex) == 0);
        CHECK(pthread_mutex_trylock(&state->mutex) == EBUSY);
        CHECK(pthread_mutex_unlock(&other->mutex) == 0);
        _exit(0);
    }
    ends_well(child);
    CHECK(shm_unlink(NAME) == 0);
    count_with_mutex(state);
}

/* "EBUSY: the mutex could not be acquired because it was already locked." */
static void mutex_trylock_of_what_is_locked_is_EBUSY(void)
{
    struct shared_state *state = new_state(0);
    CHECK(pthread_mutex_trylock(&state->mutex) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_trylock(&state->mutex) == EBUSY);
        _exit(0);
    }
    ends_well(child);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    child = start();
    if (child == 0) {
        CHECK(pthread_mutex_trylock(&state->mutex) == 0 && pthread_mutex_unlock(&state->mutex) == 0);
        _exit(0);
    }
    ends_well(child);
}

/* "ETIMEDOUT: the mutex could not be locked before the specified timeout expired." */
static void mutex_timedlock_of_what_is_locked_is_ETIMEDOUT(void)
{
    struct shared_state *state = new_state(0);
    struct timespec past = in_ms(-1000);
    CHECK(pthread_mutex_timedlock(&state->mutex, &past) == 0);
    pid_t child = start();
    if (child == 0) {
        struct timespec limit = in_ms(20);
        CHECK(pthread_mutex_timedlock(&state->mutex, &limit) == ETIMEDOUT);
        CHECK(pthread_mutex_timedlock(&state->mutex, &past) == ETIMEDOUT);
        _exit(0);
    }
    ends_well(child);
}

/* "EPERM: the mutex is a robust mutex, and the current thread does not own the mutex." */
static void mutex_unlock_by_another_is_EPERM(void)
{
    struct shared_state *state = new_state(0);
    CHECK(pthread_mutex_unlock(&state->mutex) == EPERM);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_unlock(&state->mutex) == EPERM);
        CHECK(pthread_mutex_trylock(&state->mutex) == EBUSY);
        _exit(0);
    }
    ends_well(child);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
}

/* A thread that waits for the mutex gets it when it is unlocked. */
static void mutex_waiter_is_woken(void)
{
    struct shared_state *state = new_state(0);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(state->flag == 1);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        _exit(0);
    }
    pause_ms(20);
    state->flag = 1;
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    ends_well(child);
}

/* "EOWNERDEAD: the mutex is a robust mutex and the process containing the previous owning thread terminated while holding the lock." */
static void mutex_of_one_who_exits_is_EOWNERDEAD(void)
{
    struct shared_state *state = new_state(0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        _exit(0);
    }
    ends_well(child);
    CHECK(pthread_mutex_lock(&state->mutex) == EOWNERDEAD);
    /* "The mutex lock is acquired by the calling thread"; made consistent, it is as any other. */
    CHECK(pthread_mutex_consistent(&state->mutex) == 0);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    count_with_mutex(state);
}

/* The same for one who is killed, and for each of the calls that lock. */
static void mutex_of_one_who_is_killed_is_EOWNERDEAD(void)
{
    struct shared_state *state = new_state(0);
    for (int call = 0; call < 3; call++) {
        pid_t child = start();
        if (child == 0) {
            CHECK(pthread_mutex_lock(&state->mutex) == 0);
            CHECK(sem_post(&state->semaphore) == 0);
            for (;;)
                pause_ms(1000000);
        }
        CHECK(sem_wait(&state->semaphore) == 0);
        CHECK(pthread_mutex_trylock(&state->mutex) == EBUSY);
        kill_and_reap(child);
        struct timespec limit = in_ms(60000);
        CHECK((call == 0 ? pthread_mutex_lock(&state->mutex)
               : call == 1 ? pthread_mutex_trylock(&state->mutex)
                           : pthread_mutex_timedlock(&state->mutex, &limit)) == EOWNERDEAD);
        CHECK(pthread_mutex_consistent(&state->mutex) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    }
}

/* "The lock is acquired": of those who wait when the owner dies, one gets EOWNERDEAD, and the others go on after it. */
static void mutex_waiters_learn_of_the_owners_death(void)
{
    struct shared_state *state = new_state(0);
    pid_t owner = start(), children[CHILDREN];
    if (owner == 0) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(sem_post(&state->semaphore) == 0);
        for (;;)
            pause_ms(1000000);
    }
    CHECK(sem_wait(&state->semaphore) == 0);
    for (int number = 0; number < CHILDREN; number++) {
        children[number] = start();
        if (children[number] == 0) {
            CHECK(sem_post(&state->semaphore) == 0);
            int error = pthread_mutex_lock(&state->mutex);
            CHECK(error == 0 || error == EOWNERDEAD);
            if (error) {
                state->counter++;
                CHECK(pthread_mutex_consistent(&state->mutex) == 0);
            }
            CHECK(pthread_mutex_unlock(&state->mutex) == 0);
            _exit(0);
        }
    }
    for (int number = 0; number < CHILDREN; number++)
        CHECK(sem_wait(&state->semaphore) == 0);
    pause_ms(20);
    kill_and_reap(owner);
    all_end_well(children);
    CHECK(state->counter == 1);
}

#if __STDC_HOSTED__
/* "ENOTRECOVERABLE: the state protected by the mutex is not recoverable": unlocked without having been made consistent. */
static void mutex_that_was_not_made_consistent_is_ENOTRECOVERABLE(void)
{
    struct shared_state *state = new_state(0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        _exit(0);
    }
    ends_well(child);
    CHECK(pthread_mutex_lock(&state->mutex) == EOWNERDEAD && pthread_mutex_unlock(&state->mutex) == 0);
    CHECK(pthread_mutex_lock(&state->mutex) == ENOTRECOVERABLE);
}
#endif

/* Waits until `flag` is set. */
static void wait_for_flag(struct shared_state *state)
{
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    state->waiting++;
    while (!state->flag)
        CHECK(pthread_cond_wait(&state->condition, &state->mutex) == 0);
    state->counter++;
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    _exit(0);
}

/* Waits until so many wait. They have let go of the mutex, so they have begun to. */
static void until_waiting(struct shared_state *state, int many)
{
    for (int seen = 0; seen < many;) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        seen = state->waiting;
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        pause_ms(1);
    }
}

/* "pthread_cond_signal() shall unblock at least one of the threads that are blocked"; meanwhile the mutex was released. */
static void cond_signal_wakes_a_waiter(void)
{
    struct shared_state *state = new_state(0);
    pid_t child = start();
    if (child == 0)
        wait_for_flag(state);
    until_waiting(state, 1);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    state->flag = 1;
    CHECK(pthread_cond_signal(&state->condition) == 0);
    /* It has to wait for the mutex yet. */
    pause_ms(20);
    CHECK(state->counter == 0);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    ends_well(child);
    CHECK(state->counter == 1);
}

/* "pthread_cond_broadcast() shall unblock all threads currently blocked on the specified condition variable." */
static void cond_broadcast_wakes_all_waiters(void)
{
    struct shared_state *state = new_state(0);
    pid_t children[CHILDREN];
    for (int number = 0; number < CHILDREN; number++)
        if ((children[number] = start()) == 0)
            wait_for_flag(state);
    until_waiting(state, CHILDREN);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    state->flag = 1;
    CHECK(pthread_cond_broadcast(&state->condition) == 0);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    all_end_well(children);
    CHECK(state->counter == CHILDREN);
}

/* Each signal lets one go on, if the others go back to wait: no signal is lost. */
static void cond_signals_are_not_lost(void)
{
    enum { ITEMS = 200 };
    struct shared_state *state = new_state(0);
    pid_t children[CHILDREN];
    for (int number = 0; number < CHILDREN; number++) {
        children[number] = start();
        if (children[number] == 0) {
            for (int item = 0; item < ITEMS; item++) {
                CHECK(pthread_mutex_lock(&state->mutex) == 0);
                while (state->flag == 0)
                    CHECK(pthread_cond_wait(&state->condition, &state->mutex) == 0);
                state->flag--;
                state->counter++;
                CHECK(pthread_mutex_unlock(&state->mutex) == 0);
            }
            _exit(0);
        }
    }
    for (int item = 0; item < CHILDREN * ITEMS; item++) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        state->flag++;
        CHECK(pthread_cond_signal(&state->condition) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    }
    all_end_well(children);
    CHECK(state->counter == CHILDREN * ITEMS && state->flag == 0);
}

/* "ETIMEDOUT: the time specified by abstime has passed": "the mutex shall have been locked and shall be owned by the calling thread". */
static void cond_timedwait_is_ETIMEDOUT_and_has_the_mutex(void)
{
    struct shared_state *state = new_state(0);
    struct timespec limit = in_ms(20), now;
    int error;
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    while ((error = pthread_cond_timedwait(&state->condition, &state->mutex, &limit)) == 0)
        ;
    CHECK(error == ETIMEDOUT);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    CHECK(now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec));
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_trylock(&state->mutex) == EBUSY);
        _exit(0);
    }
    ends_well(child);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
}

/* "They have no effect if there are no threads currently blocked." */
static void cond_signal_without_waiters_has_no_effect(void)
{
    struct shared_state *state = new_state(0);
    struct timespec limit = in_ms(20);
    CHECK(pthread_cond_signal(&state->condition) == 0 && pthread_cond_broadcast(&state->condition) == 0);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    int error;
    while ((error = pthread_cond_timedwait(&state->condition, &state->mutex, &limit)) == 0)
        ;
    CHECK(error == ETIMEDOUT);
}

/* A waiter learns as by a lock that the owner of the mutex has died. */
static void cond_wait_is_EOWNERDEAD_when_the_signaller_died(void)
{
    struct shared_state *state = new_state(0);
    CHECK(pthread_mutex_lock(&state->mutex) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(pthread_cond_signal(&state->condition) == 0);
        _exit(0);
    }
    int error;
    while ((error = pthread_cond_wait(&state->condition, &state->mutex)) == 0)
        ;
    CHECK(error == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&state->mutex) == 0);
    CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    ends_well(child);
}

/* sem_init() with pshared: "shared between processes", with this value; EAGAIN at 0. */
static void sem_in_shared_memory_counts(void)
{
    struct shared_state *state = new_state(2);
    pid_t child = start();
    if (child == 0) {
        CHECK(sem_wait(&state->semaphore) == 0 && sem_trywait(&state->semaphore) == 0);
        CHECK_ERRNO(sem_trywait(&state->semaphore), EAGAIN);
        _exit(0);
    }
    ends_well(child);
    CHECK_ERRNO(sem_trywait(&state->semaphore), EAGAIN);
    CHECK(sem_post(&state->semaphore) == 0 && sem_wait(&state->semaphore) == 0);
}

/* ETIMEDOUT, or in time. */
static void sem_in_shared_memory_has_a_limited_wait(void)
{
    struct shared_state *state = new_state(0);
    struct timespec past = in_ms(-1000), soon = in_ms(20), late = in_ms(60000);
    CHECK_ERRNO(sem_timedwait(&state->semaphore, &past), ETIMEDOUT);
    CHECK_ERRNO(sem_timedwait(&state->semaphore, &soon), ETIMEDOUT);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(sem_post(&state->semaphore) == 0 && sem_post(&state->semaphore) == 0);
        _exit(0);
    }
    CHECK(sem_timedwait(&state->semaphore, &late) == 0);
    CHECK(sem_timedwait(&state->semaphore, &past) == 0 || errno == ETIMEDOUT);
    ends_well(child);
}

/* "EINVAL: the value argument exceeds {SEM_VALUE_MAX}." "EOVERFLOW" above it. */
static void sem_in_shared_memory_has_a_largest_value(void)
{
    struct shared_state *state = new_state(0);
    CHECK_ERRNO(sem_init(&state->semaphore, 1, SEM_VALUE_MAX + 1u), EINVAL);
    CHECK(sem_init(&state->semaphore, 1, SEM_VALUE_MAX) == 0);
    CHECK_ERRNO(sem_post(&state->semaphore), EOVERFLOW);
}

/* Two processes in turns, and a third that only counts. */
static void sem_in_shared_memory_goes_to_and_fro(void)
{
    enum { TRIPS = 300 };
    struct shared_state *here = new_state(1), *there = new_state(0), *done = new_state(0);
    pid_t children[CHILDREN];
    for (int number = 0; number < CHILDREN; number++) {
        children[number] = start();
        if (children[number] != 0)
            continue;
        for (int trip = 0; trip < TRIPS; trip++) {
            if (number == 2) {
                CHECK(sem_wait(&done->semaphore) == 0);
                continue;
            }
            CHECK(sem_wait(number ? &there->semaphore : &here->semaphore) == 0);
            CHECK(here->counter == 2 * trip + number);
            here->counter++;
            CHECK(sem_post(number ? &here->semaphore : &there->semaphore) == 0);
            CHECK(number || sem_post(&done->semaphore) == 0);
        }
        _exit(0);
    }
    all_end_well(children);
    CHECK(here->counter == 2 * TRIPS);
}

const struct test objects[] = {
    CASE(mutex_excludes_other_processes),
    CASE(mutex_in_named_memory_excludes_other_processes),
    CASE(mutex_trylock_of_what_is_locked_is_EBUSY),
    CASE(mutex_timedlock_of_what_is_locked_is_ETIMEDOUT),
    CASE(mutex_unlock_by_another_is_EPERM),
    CASE(mutex_waiter_is_woken),
    CASE(mutex_of_one_who_exits_is_EOWNERDEAD),
    CASE(mutex_of_one_who_is_killed_is_EOWNERDEAD),
    CASE(mutex_waiters_learn_of_the_owners_death),
    LINUX_ONLY(mutex_that_was_not_made_consistent_is_ENOTRECOVERABLE, "pVMs' mutexes are always made consistent by who gets EOWNERDEAD"),
    CASE(cond_signal_wakes_a_waiter),
    CASE(cond_broadcast_wakes_all_waiters),
    CASE(cond_signals_are_not_lost),
    CASE(cond_timedwait_is_ETIMEDOUT_and_has_the_mutex),
    CASE(cond_signal_without_waiters_has_no_effect),
    CASE(cond_wait_is_EOWNERDEAD_when_the_signaller_died),
    CASE(sem_in_shared_memory_counts),
    CASE(sem_in_shared_memory_has_a_limited_wait),
    CASE(sem_in_shared_memory_has_a_largest_value),
    CASE(sem_in_shared_memory_goes_to_and_fro),
    END,
};
