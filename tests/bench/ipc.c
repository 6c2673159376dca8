/*
 * The anchor of the IpC rows: the same between two Linux processes, for `make bench`. Usage: ipc ROW SAMPLES.
 *
 * Prints lines "sample ROW TICKS" of the TSC, as the guest does (tests/guests/src/bin/bench_ipc.rs).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define TRIPS 1000
#define BULK 16
#define MIB (1 << 20)
#define PIECE (64 << 10)

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void check(int good, const char *what)
{
    if (!good)
        fail(what);
}

static void read_exactly(int from, char *buffer, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t count = read(from, buffer + at, size - at);
        check(count > 0, "read");
        at += count;
    }
}

static void write_all(int to, const char *buffer, size_t size)
{
    check(write(to, buffer, size) == (ssize_t)size, "write");
}

/* The objects that both sides share: two of each, down to the child and up to the parent. */
static int pipes[2][2];
static sem_t *semaphores;
static volatile uint8_t *memory;
static mqd_t queues[2];
static char *buffer;
static size_t size;

static void pipe_here(void)
{
    write_all(pipes[0][1], buffer, size);
    read_exactly(pipes[1][0], buffer, size);
}

static void pipe_there(void)
{
    read_exactly(pipes[0][0], buffer, size);
    write_all(pipes[1][1], buffer, size);
}

static void mq_here(void)
{
    unsigned priority;
    check(mq_send(queues[0], "x", 1, 0) == 0, "mq_send");
    check(mq_receive(queues[1], buffer, 64, &priority) == 1, "mq_receive");
}

static void mq_there(void)
{
    unsigned priority;
    check(mq_receive(queues[0], buffer, 64, &priority) == 1, "mq_receive");
    check(mq_send(queues[1], "x", 1, 0) == 0, "mq_send");
}

static void sem_here(void)
{
    check(sem_post(&semaphores[0]) == 0 && sem_wait(&semaphores[1]) == 0, "semaphore");
}

static void sem_there(void)
{
    check(sem_wait(&semaphores[0]) == 0 && sem_post(&semaphores[1]) == 0, "semaphore");
}

static void shm_here(void)
{
    static uint8_t number;
    memory[0] = ++number;
    sem_here();
    check(memory[1] == number, "another byte");
}

static void shm_there(void)
{
    check(sem_wait(&semaphores[0]) == 0, "sem_wait");
    memory[1] = memory[0];
    check(sem_post(&semaphores[1]) == 0, "sem_post");
}

static pid_t start(void)
{
    fflush(stdout);
    pid_t child = fork();
    check(child >= 0, "fork");
    return child;
}

static void trips(const char *row, int samples, void (*here)(void), void (*there)(void))
{
    if (start() == 0) {
        for (long trip = 0; trip < (samples + 1L) * TRIPS; trip++)
            there();
        _exit(0);
    }
    for (int sample = 0; sample <= samples; sample++) {
        uint64_t began = __rdtsc();
        for (int trip = 0; trip < TRIPS; trip++)
            here();
        if (sample > 0)
            printf("sample %s %llu\n", row, (unsigned long long)(__rdtsc() - began) / TRIPS);
    }
    check(wait(NULL) > 0, "wait");
}

static void pipe_bulk(int samples)
{
    if (start() == 0) {
        for (int sample = 0; sample <= samples; sample++) {
            for (int piece = 0; piece < BULK * MIB / PIECE; piece++)
                read_exactly(pipes[0][0], buffer, PIECE);
            sem_post(&semaphores[0]);
        }
        _exit(0);
    }
    for (int sample = 0; sample <= samples; sample++) {
        uint64_t began = __rdtsc();
        for (int piece = 0; piece < BULK * MIB / PIECE; piece++)
            write_all(pipes[0][1], buffer, PIECE);
        sem_wait(&semaphores[0]);
        if (sample > 0)
            printf("sample pipe_bulk %llu\n", (unsigned long long)(__rdtsc() - began) / BULK);
    }
    wait(NULL);
}

/* A signal that waits for the other side, and one back. */
static void signals(int samples)
{
    sigset_t set;
    int got;
    pid_t me = getpid();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t child = start();
    if (child == 0) {
        for (long trip = 0; trip < (samples + 1L) * TRIPS; trip++)
            check(sigwait(&set, &got) == 0 && kill(me, SIGUSR1) == 0, "signal");
        _exit(0);
    }
    for (int sample = 0; sample <= samples; sample++) {
        uint64_t began = __rdtsc();
        for (int trip = 0; trip < TRIPS; trip++)
            check(kill(child, SIGUSR1) == 0 && sigwait(&set, &got) == 0, "signal");
        if (sample > 0)
            printf("sample signal %llu\n", (unsigned long long)(__rdtsc() - began) / TRIPS);
    }
    wait(NULL);
}

static void exit_wait(int samples)
{
    for (int sample = 0; sample <= samples; sample++) {
        if (start() == 0) {
            usleep(20000);
            *(volatile uint64_t *)memory = __rdtsc();
            _exit(0);
        }
        check(wait(NULL) > 0, "wait");
        uint64_t returned = __rdtsc();
        if (sample > 0)
            printf("sample exit_wait %llu\n", (unsigned long long)(returned - *(volatile uint64_t *)memory));
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: ipc ROW SAMPLES\n");
        return 2;
    }
    const char *row = argv[1];
    int samples = atoi(argv[2]);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED, "mmap");
    memory = (volatile uint8_t *)shared;
    semaphores = (sem_t *)(shared + 1024);
    buffer = malloc(PIECE);
    check(buffer != NULL, "malloc");
    memset(buffer, 1, PIECE);
    for (int side = 0; side < 2; side++) {
        struct mq_attr attributes = {.mq_maxmsg = 10, .mq_msgsize = 64};
        const char *name = side ? "/zooid-bench-1" : "/zooid-bench-0";
        check(pipe(pipes[side]) == 0 && sem_init(&semaphores[side], 1, 0) == 0, "pipe");
        queues[side] = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes);
        check(queues[side] != (mqd_t)-1 || strcmp(row, "mq") != 0, "mq_open");
        mq_unlink(name);
    }
    if (strncmp(row, "pipe", 4) == 0 && strcmp(row, "pipe_bulk") != 0) {
        size = strcmp(row, "pipe_64k") == 0 ? 64 << 10 : strcmp(row, "pipe_4k") == 0 ? 4 << 10 : 1;
        trips(row, samples, pipe_here, pipe_there);
    } else if (strcmp(row, "pipe_bulk") == 0) {
        pipe_bulk(samples);
    } else if (strcmp(row, "mq") == 0) {
        trips(row, samples, mq_here, mq_there);
    } else if (strcmp(row, "sem") == 0) {
        trips(row, samples, sem_here, sem_there);
    } else if (strcmp(row, "shm") == 0) {
        trips(row, samples, shm_here, shm_there);
    } else if (strcmp(row, "signal") == 0) {
        signals(samples);
    } else if (strcmp(row, "exit_wait") == 0) {
        exit_wait(samples);
    } else {
        fprintf(stderr, "ipc: unknown row %s\n", row);
        return 2;
    }
    return 0;
}
