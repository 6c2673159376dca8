/* Runs the cases of a topic, one after the other. */
#include "posix.h"

#define LIMIT_MS 60000

/* The finding of a process of the case. Strings are at the same address in all processes. */
struct failure {
    const char *file, *condition;
    int line, error;
};

static struct failure *failure;
static unsigned random_state;

_Noreturn void failed(const char *file, int line, const char *condition, int error)
{
    if (failure->line == 0)
        *failure = (struct failure){file, condition, line, error};
    _exit(1);
}

pid_t start(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

void ends_well(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void ends_by(pid_t child, int signal)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal);
}

void kill_and_reap(pid_t child)
{
    CHECK(kill(child, SIGKILL) == 0);
    ends_by(child, SIGKILL);
}

void *shared(size_t size)
{
    void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(place != MAP_FAILED);
    return place;
}

#if __STDC_HOSTED__
int open_memory(const char *name, int flags, size_t size)
{
    int memory = shm_open(name, flags | O_RDWR, 0600);
    struct stat found;
    if (memory >= 0 && (fstat(memory, &found) != 0 || (found.st_size == 0 && ftruncate(memory, size) != 0)))
        return -1;
    return memory;
}
#endif

void read_all(int from, void *buffer, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t count = read(from, (char *)buffer + at, size - at);
        CHECK(count > 0);
        at += count;
    }
}

struct timespec in_ms(int ms)
{
    struct timespec time;
    CHECK(clock_gettime(CLOCK_REALTIME, &time) == 0);
    long long ns = time.tv_sec * 1000000000ll + time.tv_nsec + ms * 1000000ll;
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    CHECK(nanosleep(&time, NULL) == 0);
}

void set_nonblocking(int descriptor)
{
    CHECK(fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) == 0);
}

sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

unsigned chosen(unsigned below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

/* Returns true if it ended well. Both systems must print `case NAME ok`. */
static int run(const struct test *test)
{
    const char *kind = test->only ? "only" : "case";
    int alive[2];

    if (!test->run)
        return 1;
    *failure = (struct failure){NULL, NULL, 0, 0};
    CHECK(pipe(alive) == 0);
    pid_t child = start();
    if (child == 0) {
        close(alive[0]);
        test->run();
        _exit(0);
    }
    close(alive[1]);
    /* It becomes ready when all processes of the case have ended. */
    struct pollfd end = {alive[0], POLLIN, 0};
    int hangs = poll(&end, 1, LIMIT_MS) != 1, status;
    if (hangs)
        kill(child, SIGKILL);
    close(alive[0]);
    CHECK(waitpid(child, &status, 0) == child);
    int good = !failure->line && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (failure->line)
        printf("%s %s FAILED %s:%d: %s (errno %d)\n", kind, test->name, failure->file, failure->line, failure->condition,
               failure->error);
    else if (!good)
        printf("%s %s FAILED with status %d\n", kind, test->name, status);
    else
        printf("%s %s ok\n", kind, test->name);
    /* Remaining processes of the case may be in the way of the next one. */
    if (hangs) {
        printf("%s %s FAILED it does not end\n", kind, test->name);
        _exit(1);
    }
    return good;
}

/* Runs a topic. Returns how many cases have failed. */
int posix_main(const char *topic, unsigned seed)
{
    static const struct {
        const char *name;
        const struct test *tests;
    } topics[] = {
        {"pipes", pipes},   {"signals", signals}, {"queues", queues}, {"semaphores", semaphores},
        {"memory", memory}, {"objects", objects}, {"polls", polls},   {"deaths", deaths},
    };
    int bad = 0, known = 0;

    failure = mmap(NULL, sizeof *failure, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (failure == MAP_FAILED)
        return -1;
    random_state = seed;
    printf("seed %d\n", (int)seed);
    for (size_t at = 0; at < sizeof topics / sizeof *topics; at++) {
        if (strcmp(topics[at].name, topic) != 0)
            continue;
        known = 1;
        for (const struct test *test = topics[at].tests; test->name; test++)
            bad += !run(test);
    }
    return known ? bad : -1;
}
