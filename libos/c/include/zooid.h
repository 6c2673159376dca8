/*
 * The library OS as a C program sees it. Everything here is for code that is linked into a Zooid image and compiled with -mno-red-zone
 * (docs/applications.md).
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef ZOOID_H
#define ZOOID_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Ids of pVMs are positive. Functions that can fail return a negative error number of Linux (-11 is -EAGAIN). */

/*
 * Makes two pVMs of this one. Returns the child's id in the parent, 0 in the child.
 * -EAGAIN: a quota is used up. -ENOMEM: not enough memory. -ENOTCONN: there is no pvmd in dom0. -EDEADLK: a handler
 * of pvm_atfork cannot fork.
 */
int pvm_fork(void);

/*
 * Makes up to `count` children at once, at most 256, and writes their ids to `ids`, which has room for `count`. Returns how many were
 * made in the parent, and 0 in each child.
 */
int pvm_fork_many(unsigned count, int *ids);

/* Waits until a child has ended. Returns its id, and how it ended at `status`, which may be NULL. -ECHILD: there is none. */
int pvm_wait(int *status);

/* For `pvm_waitpid`: do not block, return 0 when no child has ended. */
#define PVM_WNOHANG 1

/* As `pvm_wait`, for the child `id`, or for any if it is -1. */
int pvm_waitpid(int id, int *status, int options);

/* What `status` says. */
#define PVM_EXITED(status) (((status) >> 8) == 0)      /* It called pvm_exit, or main returned. */
#define PVM_EXIT_CODE(status) ((status) & 0xff)
#define PVM_SIGNALED(status) (((status) >> 8) == 1)    /* A signal ended it. */
#define PVM_SIGNAL(status) ((status) & 0xff)
#define PVM_CRASHED(status) (((status) >> 8) == 2)     /* It panicked, or an exception ended it. */
#define PVM_OUT_OF_MEMORY(status) (((status) >> 8) == 3) /* No frame was left for a write after a fork. */
#define PVM_DESTROYED(status) (((status) >> 8) == 4)   /* Its domain was destroyed from outside. */

/* Ends this pVM. */
#if defined(__cplusplus)
[[noreturn]] void pvm_exit(int code);
#else
_Noreturn void pvm_exit(int code);
#endif

/* The id of this pVM, or 0 while no pvmd has seen it. */
int pvm_getpid(void);

/* The id of the parent, or 0 in the root of a family. */
int pvm_getppid(void);

/*
 * For shared objects: between the two, the calling thread sees one version of a library that is replaced while it is in use (docs/libraries.md).
 * `library` is a handle of `dlopen`. Calls nest.
 */
void zooid_library_enter(void *library);
void zooid_library_leave(void *library);

/*
 * IpC: what relatives share. An object is known by a descriptor, as a file is: a number from 0 on, the lowest that is free, which a child has, too.
 * An object without a name is this pVM's and its descendants'; one with a name can be opened by every member of the family.
 *
 * `timeout` is in nanoseconds; 0 does not wait, PVM_FOREVER waits as long as it takes.
 *
 * Besides what is said below: -EBADF (9), no such descriptor, or one of another kind. -EAGAIN (11), the time is over. -EEXIST (17), -ENOENT (2),
 * -EINVAL (22), the name or a number. -ENOSPC (28), no more memory or objects for this family. -EIO (5), a relative has written nonsense into it.
 */
#define PVM_FOREVER (-1LL)

/* Flags of what opens by name: make it if it is not there; fail if it is there. */
#define PVM_CREAT 1
#define PVM_EXCL 2

/* Makes a pipe: ends[0] is to be read, ends[1] to be written. It holds 65,536 octets, and up to 4,096 are written in one piece. */
int pvm_pipe(int ends[2]);

/* Reads what there is, at most `size` octets. Returns how many; 0 when nobody can write any more. */
long pvm_read(int descriptor, void *buffer, size_t size, long long timeout);

/* Writes `size` octets, or what there is room for in time. Returns how many. -EPIPE (32): nobody can read any more. */
long pvm_write(int descriptor, const void *buffer, size_t size, long long timeout);

/* Closes a descriptor. */
int pvm_close(int descriptor);

/* Makes or opens a semaphore, and returns its descriptor; `name` may be NULL. */
int pvm_sem_open(const char *name, int flags, unsigned value);
int pvm_sem_wait(int descriptor, long long timeout);
/* -EOVERFLOW (75): it would be above 2,147,483,647. */
int pvm_sem_post(int descriptor);
int pvm_sem_getvalue(int descriptor);

/* Makes or opens a queue of up to `messages` messages of up to `size` octets, and returns its descriptor; `name` may be NULL. */
int pvm_mq_open(const char *name, int flags, size_t messages, size_t size);
/* Sends a message; `priority` is below 32,768. -EMSGSIZE (90): it is too long. */
int pvm_mq_send(int descriptor, const void *message, size_t size, unsigned priority, long long timeout);
/* Receives the oldest message of the highest priority. Returns its length. -EMSGSIZE (90): the buffer does not hold every message. */
long pvm_mq_receive(int descriptor, void *buffer, size_t size, unsigned *priority, long long timeout);

/* Makes or opens shared memory of `size` octets, and returns its descriptor; `name` may be NULL. */
int pvm_shm_open(const char *name, int flags, size_t size);
/* Where it is, and how large; valid until the descriptor is closed. NULL: no such descriptor. */
void *pvm_shm_map(int descriptor, size_t *size);

/*
 * Mutexes, condition variables and semaphores that lie in shared memory, at multiples of their size. Zeroed memory is a mutex that nobody has, a condition
 * that nobody waits for, and a semaphore of value 0. -EINVAL (22): it does not lie in shared memory that is open.
 */
typedef struct {
    unsigned long long word;
} pvm_shared_mutex_t;
typedef struct {
    unsigned word;
} pvm_shared_cond_t;
typedef struct {
    unsigned word;
} pvm_shared_sem_t;

/* Returns 0; or -EOWNERDEAD (130): the caller has the mutex now, and the pVM that had it has ended without giving it back. */
int pvm_shared_mutex_lock(pvm_shared_mutex_t *mutex, long long timeout);
/* -EPERM (1): this pVM does not have it. */
int pvm_shared_mutex_unlock(pvm_shared_mutex_t *mutex);
/* Gives the mutex back, waits, and takes the mutex again, also when the time is over; may return without a signal. Returns as the lock does. */
int pvm_shared_cond_wait(pvm_shared_cond_t *condition, pvm_shared_mutex_t *mutex, long long timeout);
int pvm_shared_cond_signal(pvm_shared_cond_t *condition);
int pvm_shared_cond_broadcast(pvm_shared_cond_t *condition);
int pvm_shared_sem_init(pvm_shared_sem_t *semaphore, unsigned value);
int pvm_shared_sem_wait(pvm_shared_sem_t *semaphore, long long timeout);
int pvm_shared_sem_post(pvm_shared_sem_t *semaphore);

/* What a descriptor is ready for, as in poll(2), with the same values. HUP: the pipe's other end is closed. NVAL: no such descriptor. */
#define PVM_POLLIN 0x01
#define PVM_POLLOUT 0x04
#define PVM_POLLERR 0x08
#define PVM_POLLHUP 0x10
#define PVM_POLLNVAL 0x20

struct pvm_pollfd {
    int descriptor; /* One below 0 is passed over. */
    short events;   /* What is waited for: IN, OUT. */
    short revents;  /* What it is ready for. */
};

/*
 * Waits until a descriptor is ready for what is asked of it: pipes, semaphores (IN: it is above 0), queues. Returns how many have something in
 * `revents`; 0 when the time is over.
 */
int pvm_poll(struct pvm_pollfd *descriptors, unsigned count, long long timeout);

/* Removes a name. Who has the object open goes on. */
int pvm_unlink(const char *name);

/* Sends a signal to a relative; signal 0 only looks whether it lives. -ESRCH (3): it does not. */
int pvm_kill(int id, int signal);

/* What is done about a signal. A handler runs in a thread of its own. */
#define PVM_SIG_DFL ((void (*)(int))0)
#define PVM_SIG_IGN ((void (*)(int))1)
int pvm_signal(int signal, void (*handler)(int));

/* Blocks and unblocks signals; bit 1 of a set is signal 1. */
int pvm_sigmask(unsigned long long block, unsigned long long unblock);

/* Takes one of these signals, which are blocked. Returns its number. */
int pvm_sigwait(unsigned long long set, long long timeout);

/* Has functions called around each fork, as pthread_atfork has it; each may be NULL. */
void pvm_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#ifdef __cplusplus
}
#endif
#endif
