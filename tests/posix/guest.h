/*
 * POSIX' names for what zooid.h has, as far as the cases need them: a negative error number becomes errno, a time becomes a span. There is no libc.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stddef.h>

#include "zooid.h"

typedef long ssize_t;
typedef int pid_t;

extern int errno;
#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EBADF 9
#define ECHILD 10
#define EAGAIN 11
#define EBUSY 16
#define EEXIST 17
#define EINVAL 22
#define EPIPE 32
#define EOVERFLOW 75
#define EMSGSIZE 90
#define ETIMEDOUT 110
#define EOWNERDEAD 130

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *at, int value, size_t size);
int memcmp(const void *one, const void *other, size_t size);
size_t strlen(const char *text);
int strcmp(const char *one, const char *other);
/* Knows %d and %s. */
void printf(const char *format, ...);

pid_t fork(void);
#define _exit pvm_exit
#define getpid pvm_getpid
#define getppid pvm_getppid
pid_t waitpid(pid_t child, int *status, int options);
#define WNOHANG PVM_WNOHANG
#define WIFEXITED PVM_EXITED
#define WEXITSTATUS PVM_EXIT_CODE
#define WIFSIGNALED PVM_SIGNALED
#define WTERMSIG PVM_SIGNAL

struct timespec {
    long tv_sec, tv_nsec;
};
#define CLOCK_REALTIME 0
int clock_gettime(int clock, struct timespec *time);
int nanosleep(const struct timespec *span, struct timespec *left);

#define PIPE_BUF 4096
#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_CREAT 0100
#define O_EXCL 0200
#define O_NONBLOCK 04000
#define F_GETFL 3
#define F_SETFL 4
int pipe(int ends[2]);
ssize_t read(int from, void *buffer, size_t size);
ssize_t write(int to, const void *buffer, size_t size);
int close(int descriptor);
int fcntl(int descriptor, int what, ...);

struct pollfd {
    int fd;
    short events, revents;
};
#define POLLIN PVM_POLLIN
#define POLLOUT PVM_POLLOUT
#define POLLERR PVM_POLLERR
#define POLLHUP PVM_POLLHUP
#define POLLNVAL PVM_POLLNVAL
int poll(struct pollfd *descriptors, unsigned long count, int ms);

#define SIGHUP 1
#define SIGINT 2
#define SIGQUIT 3
#define SIGKILL 9
#define SIGUSR1 10
#define SIGUSR2 12
#define SIGPIPE 13
#define SIGALRM 14
#define SIGTERM 15
#define SIGCHLD 17
#define SIGCONT 18
#define SIGSTOP 19
#define SIGURG 23
typedef unsigned long long sigset_t;
typedef void (*sighandler_t)(int);
typedef int sig_atomic_t;
#define SIG_DFL PVM_SIG_DFL
#define SIG_IGN PVM_SIG_IGN
#define SIG_ERR ((sighandler_t)-1)
#define SIG_BLOCK 0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
sighandler_t signal(int signal, sighandler_t handler);
int kill(pid_t target, int signal);
#define sigemptyset(set) ((void)(*(set) = 0))
#define sigfillset(set) ((void)(*(set) = ~1ull))
#define sigaddset(set, signal) ((void)(*(set) |= 1ull << (signal)))
#define siginfo_t void
int sigprocmask(int how, const sigset_t *set, sigset_t *before);
int sigwait(const sigset_t *set, int *signal);
int sigtimedwait(const sigset_t *set, siginfo_t *information, const struct timespec *span);

typedef int mqd_t;
struct mq_attr {
    long mq_flags, mq_maxmsg, mq_msgsize, mq_curmsgs;
};
#define MQ_PRIO_MAX 32768
mqd_t mq_open(const char *name, int flags, ...);
int mq_send(mqd_t queue, const char *message, size_t size, unsigned priority);
ssize_t mq_receive(mqd_t queue, char *buffer, size_t size, unsigned *priority);
int mq_timedsend(mqd_t queue, const char *message, size_t size, unsigned priority, const struct timespec *limit);
ssize_t mq_timedreceive(mqd_t queue, char *buffer, size_t size, unsigned *priority, const struct timespec *limit);
#define mq_close close
int guest_unlink(const char *name);
#define mq_unlink guest_unlink
#define sem_unlink guest_unlink
#define shm_unlink guest_unlink

/* In shared memory, or one of those that sem_open returns. */
typedef pvm_shared_sem_t sem_t;
#define SEM_FAILED ((sem_t *)0)
#define SEM_VALUE_MAX 2147483647
sem_t *sem_open(const char *name, int flags, ...);
int sem_close(sem_t *semaphore);
int sem_init(sem_t *semaphore, int shared, unsigned value);
int sem_wait(sem_t *semaphore);
int sem_trywait(sem_t *semaphore);
int sem_timedwait(sem_t *semaphore, const struct timespec *limit);
int sem_post(sem_t *semaphore);
int sem_getvalue(sem_t *semaphore, int *value);

#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_ANONYMOUS 32
#define MAP_FAILED ((void *)-1)
struct stat {
    long st_size;
};
void *mmap(void *at, size_t size, int protection, int flags, int memory, long offset);
int fstat(int memory, struct stat *found);

/* Attributes do nothing: every mutex is robust and shared. */
typedef pvm_shared_mutex_t pthread_mutex_t;
typedef pvm_shared_cond_t pthread_cond_t;
typedef int pthread_mutexattr_t, pthread_condattr_t;
#define PTHREAD_PROCESS_SHARED 1
#define PTHREAD_MUTEX_ROBUST 1
#define pthread_mutexattr_init(attributes) (*(attributes) = 0)
#define pthread_mutexattr_setpshared(attributes, shared) ((void)(attributes), 0)
#define pthread_mutexattr_setrobust(attributes, robust) ((void)(attributes), 0)
#define pthread_mutex_init(mutex, attributes) ((mutex)->word = 0, 0)
#define pthread_mutex_consistent(mutex) ((void)(mutex), 0)
#define pthread_condattr_init(attributes) (*(attributes) = 0)
#define pthread_condattr_setpshared(attributes, shared) ((void)(attributes), 0)
#define pthread_cond_init(condition, attributes) ((condition)->word = 0, 0)
int pthread_mutex_lock(pthread_mutex_t *mutex);
int pthread_mutex_trylock(pthread_mutex_t *mutex);
int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *limit);
int pthread_mutex_unlock(pthread_mutex_t *mutex);
int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *limit);
int pthread_cond_signal(pthread_cond_t *condition);
int pthread_cond_broadcast(pthread_cond_t *condition);

#endif
