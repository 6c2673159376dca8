/*
 * The death of a peer at every step. A child repeats what it does and is killed: after a number of steps that the seed chooses, by itself, so that
 * a pVM dies somewhere in the steps after it (its death comes by way of pvmd); by its parent, which has seen a number of steps; or while it waits.
 */
#include "posix.h"

#define NAME "/zooid-deaths"
#define KILLS 5
#define LARGE 100000

struct state {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    sem_t semaphore;
    /* Always the same but in the middle of a step. */
    volatile int one, other;
};

static char buffer[LARGE];

/* In the child: its death is on the way when that many steps are done. */
static void step(int *left)
{
    if ((*left)-- == 0)
        CHECK(kill(getpid(), SIGKILL) == 0);
}

static struct state *new_state(unsigned value)
{
    struct state *state = shared(sizeof *state);
    pthread_mutexattr_t mutex;
    pthread_condattr_t condition;
    CHECK(pthread_mutexattr_init(&mutex) == 0 && pthread_condattr_init(&condition) == 0);
    CHECK(pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST) == 0);
    CHECK(pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_mutex_init(&state->mutex, &mutex) == 0 && pthread_cond_init(&state->condition, &condition) == 0);
    CHECK(sem_init(&state->semaphore, 1, value) == 0);
    return state;
}

static mqd_t new_queue(int messages)
{
    struct mq_attr attributes = {.mq_maxmsg = messages, .mq_msgsize = 1000};
    mqd_t queue = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    CHECK(queue >= 0 && mq_unlink(NAME) == 0);
    return queue;
}

/* The reader gets what was written, in order and in whole pieces, then the end. */
static void pipe_writer_is_killed(void)
{
    for (int round = 0; round < KILLS; round++) {
        int ends[2], left = chosen(60);
        CHECK(pipe(ends) == 0);
        pid_t child = start();
        if (child == 0)
            for (int piece = 0;; piece++) {
                step(&left);
                memset(buffer, piece, PIPE_BUF);
                CHECK(write(ends[1], buffer, PIPE_BUF) == PIPE_BUF);
            }
        CHECK(close(ends[1]) == 0);
        size_t size = 0;
        for (ssize_t count; (count = read(ends[0], buffer, 3000)) != 0; size += count) {
            CHECK(count > 0);
            for (ssize_t at = 0; at < count; at++)
                CHECK(buffer[at] == (char)((size + at) / PIPE_BUF));
        }
        CHECK(size % PIPE_BUF == 0);
        ends_by(child, SIGKILL);
    }
}

/* The same in the middle of a write that waits for room: its reader has what fitted, then the
   end. */
static void pipe_writer_is_killed_while_it_waits(void)
{
    for (int round = 0; round < KILLS; round++) {
        int ends[2];
        size_t size = chosen(LARGE / 2);
        CHECK(pipe(ends) == 0);
        pid_t child = start();
        if (child == 0) {
            for (size_t at = 0; at < LARGE; at++)
                buffer[at] = at * 7;
            for (;;)
                CHECK(write(ends[1], buffer, LARGE) == LARGE);
        }
        CHECK(close(ends[1]) == 0);
        read_all(ends[0], buffer, size);
        pause_ms(chosen(20));
        CHECK(kill(child, SIGKILL) == 0);
        for (ssize_t count; (count = read(ends[0], buffer, 5000)) != 0; size += count) {
            CHECK(count > 0);
            for (ssize_t at = 0; at < count; at++)
                CHECK(buffer[at] == (char)((size + at) % LARGE * 7));
        }
        ends_by(child, SIGKILL);
    }
}

/* A writer gets EPIPE, also one that waits for room; until then it has written whole pieces. */
static void pipe_reader_is_killed(void)
{
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    for (int round = 0; round < KILLS; round++) {
        int ends[2], left = chosen(60);
        CHECK(pipe(ends) == 0);
        pid_t child = start();
        if (child == 0)
            for (;;) {
                step(&left);
                CHECK(read(ends[0], buffer, 3000) > 0);
            }
        CHECK(close(ends[0]) == 0);
        ssize_t count;
        while ((count = write(ends[1], buffer, PIPE_BUF)) == PIPE_BUF)
            ;
        CHECK(count == -1 && errno == EPIPE);
        ends_by(child, SIGKILL);
    }
}

/* A reader that is killed while it waits takes nothing with it: another one reads all. */
static void pipe_reader_is_killed_while_it_waits(void)
{
    for (int round = 0; round < KILLS; round++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        pid_t child = start();
        if (child == 0)
            read_all(ends[0], buffer, 1);
        pause_ms(chosen(20));
        kill_and_reap(child);
        CHECK(write(ends[1], "to who is left", 14) == 14);
        read_all(ends[0], buffer, 14);
        CHECK(memcmp(buffer, "to who is left", 14) == 0);
        set_nonblocking(ends[0]);
        CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
    }
}

/* A message is there as a whole, or not at all; those before it are there; the queue goes on. */
static void mq_sender_is_killed(void)
{
    for (int round = 0; round < KILLS; round++) {
        mqd_t queue = new_queue(3);
        int left = chosen(60);
        pid_t child = start();
        if (child == 0)
            for (int message = 0;; message++) {
                step(&left);
                memset(buffer, message, 1000);
                CHECK(mq_send(queue, buffer, 100 + message % 900, 0) == 0);
            }
        /* Until it has died, and nothing is left. */
        int ended = 0, next = 0;
        for (;;) {
            struct timespec limit = in_ms(ended ? 0 : 10);
            ssize_t count = mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit);
            if (count < 0) {
                CHECK(errno == ETIMEDOUT);
                if (ended)
                    break;
                int status;
                pid_t found = waitpid(child, &status, WNOHANG);
                CHECK(found == 0 || (found == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
                ended = found == child;
                continue;
            }
            CHECK(count == 100 + next % 900);
            for (ssize_t at = 0; at < count; at++)
                CHECK(buffer[at] == (char)next);
            next++;
        }
        CHECK(mq_send(queue, "on", 2, 0) == 0 && mq_receive(queue, buffer, sizeof buffer, NULL) == 2);
    }
}

/* At most one message goes with a receiver; the others stay, in order, and a sender that waits is
   woken. */
static void mq_receiver_is_killed(void)
{
    for (int round = 0; round < KILLS; round++) {
        mqd_t queue = new_queue(3);
        volatile int *received = shared(sizeof *received);
        int left = chosen(60), sent = 0, status;
        pid_t child = start();
        if (child == 0)
            for (;;) {
                step(&left);
                CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == sizeof sent);
                memcpy(&sent, buffer, sizeof sent);
                CHECK(sent == *received);
                ++*received;
            }
        while (waitpid(child, &status, WNOHANG) == 0) {
            struct timespec limit = in_ms(10);
            if (mq_timedsend(queue, (char *)&sent, sizeof sent, 0, &limit) == 0)
                sent++;
            else
                CHECK(errno == ETIMEDOUT);
        }
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct timespec now = in_ms(0);
        int next = -1, number;
        while (mq_timedreceive(queue, buffer, sizeof buffer, NULL, &now) == sizeof number) {
            memcpy(&number, buffer, sizeof number);
            CHECK(next < 0 ? number == *received || number == *received + 1 : number == next);
            next = number + 1;
        }
        CHECK(errno == ETIMEDOUT);
        CHECK(next < 0 ? sent - *received <= 1 : next == sent);
    }
}

/* A process that is killed while it waits in a queue holds nobody up. */
static void mq_waiters_are_killed(void)
{
    for (int round = 0; round < KILLS; round++) {
        mqd_t queue = new_queue(1);
        pid_t child = start();
        if (child == 0) {
            mq_receive(queue, buffer, sizeof buffer, NULL);
            _exit(0);
        }
        pause_ms(chosen(20));
        kill_and_reap(child);
        CHECK(mq_send(queue, "x", 1, 0) == 0);
        child = start();
        if (child == 0) {
            mq_send(queue, "y", 1, 1);
            _exit(0);
        }
        pause_ms(chosen(20));
        kill_and_reap(child);
        CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] == 'x');
        struct timespec now = in_ms(0);
        CHECK_ERRNO(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &now), ETIMEDOUT);
        CHECK(mq_send(queue, "z", 1, 0) == 0 && mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
    }
}

/* "EOWNERDEAD" if and only if the owner was in the middle; the mutex goes on. */
static void mutex_owner_is_killed(void)
{
    struct state *state = new_state(0);
    for (int round = 0; round < 2 * KILLS; round++) {
        int left = chosen(200);
        pid_t child = start();
        if (child == 0)
            for (;;) {
                CHECK(pthread_mutex_lock(&state->mutex) == 0);
                step(&left);
                state->one++;
                step(&left);
                state->other++;
                CHECK(pthread_mutex_unlock(&state->mutex) == 0);
            }
        /* It takes part meanwhile. */
        int status, error;
        do {
            error = pthread_mutex_lock(&state->mutex);
            CHECK(error == 0 || error == EOWNERDEAD);
            CHECK(error == EOWNERDEAD || state->one == state->other);
            if (error == EOWNERDEAD) {
                CHECK(state->one == state->other || state->one == state->other + 1);
                state->other = state->one;
                CHECK(pthread_mutex_consistent(&state->mutex) == 0);
            }
            CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        } while (waitpid(child, &status, WNOHANG) == 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        error = pthread_mutex_lock(&state->mutex);
        CHECK(error == EOWNERDEAD || (error == 0 && state->one == state->other));
        state->other = state->one;
        CHECK(error == 0 || pthread_mutex_consistent(&state->mutex) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    }
}

/* A process that is killed while it waits for a mutex holds nobody up, and does not own the
   mutex. */
static void mutex_waiters_are_killed(void)
{
    struct state *state = new_state(0);
    for (int round = 0; round < KILLS; round++) {
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        pid_t locks = start();
        if (locks == 0) {
            pthread_mutex_lock(&state->mutex);
            _exit(0);
        }
        pause_ms(chosen(20));
        kill_and_reap(locks);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
    }
}

#if !__STDC_HOSTED__
/* The same for a condition variable, of which POSIX says nothing. */
static void cond_waiters_are_killed(void)
{
    struct state *state = new_state(0);
    for (int round = 0; round < KILLS; round++) {
        pid_t waits = start();
        if (waits == 0) {
            CHECK(pthread_mutex_lock(&state->mutex) == 0);
            CHECK(sem_post(&state->semaphore) == 0);
            for (;;)
                pthread_cond_wait(&state->condition, &state->mutex);
        }
        CHECK(sem_wait(&state->semaphore) == 0);
        /* So it waits now. */
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        kill_and_reap(waits);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        pid_t last = start();
        if (last == 0) {
            CHECK(pthread_mutex_lock(&state->mutex) == 0);
            CHECK(sem_post(&state->semaphore) == 0);
            CHECK(pthread_cond_wait(&state->condition, &state->mutex) == 0);
            CHECK(pthread_mutex_unlock(&state->mutex) == 0);
            _exit(0);
        }
        CHECK(sem_wait(&state->semaphore) == 0);
        CHECK(pthread_mutex_lock(&state->mutex) == 0);
        CHECK(pthread_cond_broadcast(&state->condition) == 0);
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        ends_well(last);
    }
}
#endif

/* A semaphore does not know its holders: what a killed one has taken is gone, and no more than
   that. Both kinds of it. */
static void sem_user_is_killed(void)
{
    sem_t *both[2] = {&new_state(1)->semaphore, sem_open(NAME, O_CREAT | O_EXCL, 0600, 1)};
    CHECK(both[1] != SEM_FAILED && sem_unlink(NAME) == 0);
    for (int round = 0; round < 2 * KILLS; round++) {
        sem_t *semaphore = both[round % 2];
        int left = chosen(200);
        pid_t child = start();
        if (child == 0)
            for (;;) {
                CHECK(sem_wait(semaphore) == 0);
                step(&left);
                CHECK(sem_post(semaphore) == 0);
                step(&left);
            }
        ends_by(child, SIGKILL);
        /* One or none. */
        struct timespec past = in_ms(-1);
        if (sem_timedwait(semaphore, &past) != 0)
            CHECK(errno == ETIMEDOUT);
        CHECK_ERRNO(sem_timedwait(semaphore, &past), ETIMEDOUT);
        /* One that waits takes nothing when it is killed. */
        child = start();
        if (child == 0) {
            sem_wait(semaphore);
            _exit(0);
        }
        pause_ms(chosen(20));
        kill_and_reap(child);
        CHECK(sem_post(semaphore) == 0);
        CHECK(sem_timedwait(semaphore, &past) == 0);
        CHECK(sem_post(semaphore) == 0);
    }
}

/* All three at once, on everything, and those who are left go on; the last one has every object to
   itself. */
static void all_peers_are_killed(void)
{
    enum { PEERS = 3 };
    struct state *state = new_state(1);
    mqd_t queue = new_queue(3);
    pid_t peers[PEERS];
    for (int round = 0; round < KILLS; round++) {
        for (int peer = 0; peer < PEERS; peer++) {
            int left = 20 + chosen(200);
            peers[peer] = start();
            if (peers[peer] != 0)
                continue;
            for (;;) {
                struct timespec limit = in_ms(10);
                int error = pthread_mutex_lock(&state->mutex);
                CHECK(error == 0 || error == EOWNERDEAD);
                if (error)
                    CHECK(pthread_mutex_consistent(&state->mutex) == 0);
                step(&left);
                CHECK(pthread_mutex_unlock(&state->mutex) == 0);
                CHECK(mq_timedsend(queue, buffer, peer, peer, &limit) == 0 || errno == ETIMEDOUT);
                step(&left);
                ssize_t count = mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit);
                CHECK(count < PEERS && (count >= 0 || errno == ETIMEDOUT));
                step(&left);
            }
        }
        for (int peer = 0; peer < PEERS; peer++)
            ends_by(peers[peer], SIGKILL);
        int error = pthread_mutex_lock(&state->mutex);
        CHECK(error == 0 || (error == EOWNERDEAD && pthread_mutex_consistent(&state->mutex) == 0));
        CHECK(pthread_mutex_unlock(&state->mutex) == 0);
        struct timespec now = in_ms(0);
        ssize_t count;
        while ((count = mq_timedreceive(queue, buffer, sizeof buffer, NULL, &now)) >= 0)
            CHECK(count < PEERS);
        CHECK(errno == ETIMEDOUT);
        for (int message = 0; message < 3; message++)
            CHECK(mq_timedsend(queue, "x", 1, 0, &now) == 0);
        CHECK_ERRNO(mq_timedsend(queue, "x", 1, 0, &now), ETIMEDOUT);
        for (int message = 0; message < 3; message++)
            CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
    }
}

const struct test deaths[] = {
    CASE(pipe_writer_is_killed),
    CASE(pipe_writer_is_killed_while_it_waits),
    CASE(pipe_reader_is_killed),
    CASE(pipe_reader_is_killed_while_it_waits),
    CASE(mq_sender_is_killed),
    CASE(mq_receiver_is_killed),
    CASE(mq_waiters_are_killed),
    CASE(mutex_owner_is_killed),
    CASE(mutex_waiters_are_killed),
    GUEST_ONLY(cond_waiters_are_killed, "a condition variable of Linux' C library may hang when a waiter was killed"),
    CASE(sem_user_is_killed),
    CASE(all_peers_are_killed),
    END,
};
