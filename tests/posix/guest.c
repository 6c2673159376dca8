/* See guest.h. */
#include "guest.h"

/* tests/guests/src/bin/posix.rs has these. */
void guest_print(const char *text, size_t length);
long long guest_now(void);
void guest_sleep(long long nanoseconds);

#define DESCRIPTORS 256

int errno;

/* By descriptor: O_NONBLOCK or 0; and what sem_open returns for it. */
static int flags_of[DESCRIPTORS];
static sem_t named[DESCRIPTORS];

/* A result as POSIX has it. */
static long result(long value)
{
    if (value >= 0)
        return value;
    errno = -value;
    return -1;
}

/* One of a call with a limit: ours says EAGAIN when the time is over. */
static long timed(long value)
{
    return result(value == -EAGAIN ? -ETIMEDOUT : value);
}

/* One of pthread's calls. */
static int error_of(int value, int when_over)
{
    return value == -EAGAIN ? when_over : -value;
}

static long long nanoseconds(const struct timespec *time)
{
    return time->tv_sec * 1000000000ll + time->tv_nsec;
}

/* The time until then. */
static long long until(const struct timespec *limit)
{
    long long span = nanoseconds(limit) - guest_now();
    return span > 0 ? span : 0;
}

static long long patience(int descriptor)
{
    return descriptor >= 0 && descriptor < DESCRIPTORS && flags_of[descriptor] & O_NONBLOCK ? 0 : PVM_FOREVER;
}

/* A new descriptor. */
static int opened(int descriptor, int flags)
{
    if (descriptor >= DESCRIPTORS)
        pvm_exit(99);
    if (descriptor >= 0)
        flags_of[descriptor] = flags & O_NONBLOCK;
    return result(descriptor);
}

static int ours(int flags)
{
    return (flags & O_CREAT ? PVM_CREAT : 0) | (flags & O_EXCL ? PVM_EXCL : 0);
}

/* POSIX' names begin with a slash. */
static const char *plain(const char *name)
{
    return name + (name[0] == '/');
}

int strcmp(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return (unsigned char)*one - (unsigned char)*other;
}

void printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            guest_print(format, 1);
            continue;
        }
        char digits[12];
        char *at = digits + sizeof digits;
        if (*++format == 's') {
            const char *text = va_arg(arguments, const char *);
            guest_print(text, strlen(text));
            continue;
        }
        int number = va_arg(arguments, int);
        unsigned left = number < 0 ? -(unsigned)number : (unsigned)number;
        do
            *--at = '0' + left % 10;
        while (left /= 10);
        if (number < 0)
            *--at = '-';
        guest_print(at, digits + sizeof digits - at);
    }
    va_end(arguments);
}

pid_t fork(void) { return result(pvm_fork()); }
pid_t waitpid(pid_t child, int *status, int options) { return result(pvm_waitpid(child, status, options)); }

int clock_gettime(int clock, struct timespec *time)
{
    (void)clock;
    long long now = guest_now();
    *time = (struct timespec){now / 1000000000, now % 1000000000};
    return 0;
}

int nanosleep(const struct timespec *span, struct timespec *left)
{
    (void)left;
    guest_sleep(nanoseconds(span));
    return 0;
}

int pipe(int ends[2])
{
    int made = pvm_pipe(ends);
    if (made < 0)
        return result(made);
    opened(ends[0], 0);
    opened(ends[1], 0);
    return 0;
}

ssize_t read(int from, void *buffer, size_t size) { return result(pvm_read(from, buffer, size, patience(from))); }
ssize_t write(int to, const void *buffer, size_t size) { return result(pvm_write(to, buffer, size, patience(to))); }
int close(int descriptor) { return result(pvm_close(descriptor)); }

int fcntl(int descriptor, int what, ...)
{
    va_list arguments;
    if (what == F_GETFL)
        return flags_of[descriptor];
    va_start(arguments, what);
    flags_of[descriptor] = va_arg(arguments, int);
    va_end(arguments);
    return 0;
}

int poll(struct pollfd *descriptors, unsigned long count, int ms)
{
    return result(pvm_poll((struct pvm_pollfd *)descriptors, count, ms < 0 ? PVM_FOREVER : ms * 1000000ll));
}

sighandler_t signal(int signal, sighandler_t handler)
{
    return result(pvm_signal(signal, handler)) == 0 ? SIG_DFL : SIG_ERR;
}

int kill(pid_t target, int signal) { return result(pvm_kill(target, signal)); }

int sigprocmask(int how, const sigset_t *set, sigset_t *before)
{
    (void)before;
    return result(pvm_sigmask(how == SIG_UNBLOCK ? 0 : *set, how == SIG_UNBLOCK ? *set : how == SIG_BLOCK ? 0 : ~*set));
}

int sigwait(const sigset_t *set, int *signal)
{
    *signal = pvm_sigwait(*set, PVM_FOREVER);
    return *signal < 0 ? -*signal : 0;
}

int sigtimedwait(const sigset_t *set, siginfo_t *information, const struct timespec *span)
{
    (void)information;
    return result(pvm_sigwait(*set, nanoseconds(span)));
}

mqd_t mq_open(const char *name, int flags, ...)
{
    struct mq_attr attributes = {0, 10, 8192, 0};
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        (void)va_arg(arguments, int);
        const struct mq_attr *given = va_arg(arguments, const struct mq_attr *);
        va_end(arguments);
        if (given)
            attributes = *given;
    }
    return opened(pvm_mq_open(plain(name), ours(flags), attributes.mq_maxmsg, attributes.mq_msgsize), flags);
}

int mq_send(mqd_t queue, const char *message, size_t size, unsigned priority)
{
    return result(pvm_mq_send(queue, message, size, priority, patience(queue)));
}

ssize_t mq_receive(mqd_t queue, char *buffer, size_t size, unsigned *priority)
{
    return result(pvm_mq_receive(queue, buffer, size, priority, patience(queue)));
}

int mq_timedsend(mqd_t queue, const char *message, size_t size, unsigned priority, const struct timespec *limit)
{
    return timed(pvm_mq_send(queue, message, size, priority, until(limit)));
}

ssize_t mq_timedreceive(mqd_t queue, char *buffer, size_t size, unsigned *priority, const struct timespec *limit)
{
    return timed(pvm_mq_receive(queue, buffer, size, priority, until(limit)));
}

int guest_unlink(const char *name) { return result(pvm_unlink(plain(name))); }

/* The descriptor of one that sem_open returned, or -1. */
static int descriptor_of(const sem_t *semaphore)
{
    return semaphore >= named && semaphore < named + DESCRIPTORS ? semaphore - named : -1;
}

sem_t *sem_open(const char *name, int flags, ...)
{
    unsigned value = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        (void)va_arg(arguments, int);
        value = va_arg(arguments, unsigned);
        va_end(arguments);
    }
    int descriptor = opened(pvm_sem_open(plain(name), ours(flags), value), 0);
    return descriptor < 0 ? SEM_FAILED : &named[descriptor];
}

int sem_close(sem_t *semaphore) { return close(descriptor_of(semaphore)); }

int sem_init(sem_t *semaphore, int shared, unsigned value)
{
    (void)shared;
    return result(pvm_shared_sem_init(semaphore, value));
}

static int wait_for(sem_t *semaphore, long long timeout)
{
    int descriptor = descriptor_of(semaphore);
    return descriptor < 0 ? pvm_shared_sem_wait(semaphore, timeout) : pvm_sem_wait(descriptor, timeout);
}

int sem_wait(sem_t *semaphore) { return result(wait_for(semaphore, PVM_FOREVER)); }
int sem_trywait(sem_t *semaphore) { return result(wait_for(semaphore, 0)); }
int sem_timedwait(sem_t *semaphore, const struct timespec *limit) { return timed(wait_for(semaphore, until(limit))); }

int sem_post(sem_t *semaphore)
{
    int descriptor = descriptor_of(semaphore);
    return result(descriptor < 0 ? pvm_shared_sem_post(semaphore) : pvm_sem_post(descriptor));
}

int sem_getvalue(sem_t *semaphore, int *value)
{
    *value = pvm_sem_getvalue(descriptor_of(semaphore));
    return result(*value) < 0 ? -1 : 0;
}

int open_memory(const char *name, int flags, size_t size)
{
    return opened(pvm_shm_open(plain(name), ours(flags), size), 0);
}

void *mmap(void *at, size_t size, int protection, int flags, int memory, long offset)
{
    (void)at, (void)protection, (void)offset;
    if (flags & MAP_ANONYMOUS)
        memory = opened(pvm_shm_open(NULL, 0, size), 0);
    void *place = pvm_shm_map(memory, NULL);
    return place ? place : MAP_FAILED;
}

int fstat(int memory, struct stat *found)
{
    size_t size;
    if (!pvm_shm_map(memory, &size))
        return result(-EBADF);
    found->st_size = size;
    return 0;
}

int pthread_mutex_lock(pthread_mutex_t *mutex) { return -pvm_shared_mutex_lock(mutex, PVM_FOREVER); }
int pthread_mutex_trylock(pthread_mutex_t *mutex) { return error_of(pvm_shared_mutex_lock(mutex, 0), EBUSY); }

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *limit)
{
    return error_of(pvm_shared_mutex_lock(mutex, until(limit)), ETIMEDOUT);
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) { return -pvm_shared_mutex_unlock(mutex); }

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    return -pvm_shared_cond_wait(condition, mutex, PVM_FOREVER);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *limit)
{
    return error_of(pvm_shared_cond_wait(condition, mutex, until(limit)), ETIMEDOUT);
}

int pthread_cond_signal(pthread_cond_t *condition) { return -pvm_shared_cond_signal(condition); }
int pthread_cond_broadcast(pthread_cond_t *condition) { return -pvm_shared_cond_broadcast(condition); }
