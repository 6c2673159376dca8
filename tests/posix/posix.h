/*
 * Rules of POSIX, one case a rule, from one source for two systems: Linux processes, and pVMs by way of zooid.h (guest.h has POSIX' names for it).
 */
#ifndef POSIX_H
#define POSIX_H

#if __STDC_HOSTED__
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#else
#include "guest.h"
#endif

/* A case. It runs in a process of its own, and has failed unless that exits with 0. */
struct test {
    const char *name;
    void (*run)(void);
    const char *only; /* Why one of the two systems alone has it, or NULL. */
};

#define CASE(name) { #name, name, NULL }
#if __STDC_HOSTED__
#define LINUX_ONLY(name, why) { #name, name, why }
#define GUEST_ONLY(name, why) { #name, NULL, why }
#else
#define LINUX_ONLY(name, why) { #name, NULL, why }
#define GUEST_ONLY(name, why) { #name, name, why }
#endif
#define END { NULL, NULL, NULL }

extern const struct test pipes[], signals[], queues[], semaphores[], memory[], objects[], polls[], deaths[];

/* Fails the case, in whichever process of it. */
#define CHECK(condition) do { if (!(condition)) failed(__FILE__, __LINE__, #condition, errno); } while (0)
#define CHECK_ERRNO(call, error) do { errno = 0; CHECK((call) == -1); CHECK(errno == (error)); } while (0)
_Noreturn void failed(const char *file, int line, const char *condition, int error);

/* Forks. A child leaves by _exit. */
pid_t start(void);
/* Waits for a child, which must exit with 0; or be ended by `signal`. */
void ends_well(pid_t child);
void ends_by(pid_t child, int signal);
/* A child does this now and will for ever; kills it. */
void kill_and_reap(pid_t child);

/* Memory that this process and those it forks share, zeroed; not to be given back. */
void *shared(size_t size);
/* Shared memory of this size: shm_open and, if that made it, ftruncate, which are one call in the guest. */
int open_memory(const char *name, int flags, size_t size);

/* Reads exactly `size` octets. */
void read_all(int from, void *buffer, size_t size);
/* An absolute time for the calls that have a limit. */
struct timespec in_ms(int ms);
void pause_ms(int ms);
void set_nonblocking(int descriptor);
sigset_t set_of(int signal);

/* The next of a row of numbers that begins with the seed: 0 to below - 1. */
unsigned chosen(unsigned below);

int posix_main(const char *topic, unsigned seed);

#endif
