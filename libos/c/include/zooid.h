/*
 * The library OS as a C program sees it. Everything here is for code that is linked into a Zooid image and compiled with -mno-red-zone
 * (docs/applications.md).
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef ZOOID_H
#define ZOOID_H

#ifdef __cplusplus
extern "C" {
#endif

/* Ids of pVMs are positive. Functions that can fail return a negative error number of Linux (-11 is -EAGAIN). */

/*
 * Makes two pVMs of this one. Returns the child's id in the parent, 0 in the child.
 * -EAGAIN: a quota is used up. -ENOMEM: not enough memory. -ENOTCONN: there is no pvmd in dom0.
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

/* Has functions called around each fork, as pthread_atfork has it; each may be NULL. */
void pvm_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#ifdef __cplusplus
}
#endif
#endif
