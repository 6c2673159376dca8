/*
 * The anchor of the fork rows: the same with Linux processes, for `make bench`. Usage: fork ROW ROUNDS; prints "sample ROW NANOSECONDS".
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MIB (1 << 20)

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void touch(volatile uint64_t *memory, size_t size, uint64_t value)
{
    for (size_t at = 0; at < size / 8; at++)
        memory[at] = value;
}

/* Writes 256 pages of 4 MiB and verifies all of it. */
static void write_and_verify(volatile uint64_t *memory, uint64_t value)
{
    for (size_t page = 0; page < 1024; page += 4)
        memory[page * (PAGE / 8)] = value;
    for (size_t page = 0; page < 1024; page++) {
        uint64_t expected = page % 4 == 0 ? value : memory[page * (PAGE / 8) + 1];
        if (memory[page * (PAGE / 8)] != expected)
            fail("wrong contents");
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *row = argv[1];
    int rounds = atoi(argv[2]);
    size_t size = strcmp(row, "fork_256") == 0 ? 256 * (size_t)MIB : 4 * (size_t)MIB;
    volatile uint64_t *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    /* Written by a child right before it ends, read by the parent: when the child was done. */
    volatile uint64_t *child_end = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    touch(memory, size, 1);
    if (strcmp(row, "fork_rate") == 0) {
        uint64_t began = now();
        for (int round = 0; round < rounds; round++) {
            pid_t child = fork();
            if (child < 0)
                fail("fork");
            if (child == 0)
                _exit(0);
            waitpid(child, 0, 0);
        }
        printf("sample fork_rate %llu\n", (unsigned long long)(now() - began) / rounds);
        return 0;
    }
    for (int round = 0; round < rounds; round++) {
        /* As ours: dirty pages are forked, except in the row about clean ones. */
        if (strcmp(row, "fork_clean") != 0)
            touch(memory, size, round + 2);
        uint64_t began = now();
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            if (strcmp(row, "fork_write") == 0)
                write_and_verify(memory, 1ull << 32);
            *child_end = now();
            _exit(0);
        }
        if (strcmp(row, "fork_write") == 0)
            write_and_verify(memory, 1ull << 33);
        uint64_t ended = now();
        waitpid(child, 0, 0);
        if (strcmp(row, "fork_write") == 0 && *child_end > ended)
            ended = *child_end;
        printf("sample %s %llu\n", row, (unsigned long long)(ended - began));
    }
    return 0;
}
