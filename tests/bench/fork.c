/*
 * The anchor of the fork rows: the same with Linux processes, for `make bench`. Usage: fork ROW ROUNDS.
 *
 * Prints lines "sample ROW TICKS" of the TSC, the counter that the guest reads, too.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define MIB (1 << 20)
/* Cycles of fork_rate that make up one sample. */
#define CYCLES 200

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Writes every page. */
static void touch(uint64_t *memory, size_t pages, uint64_t value)
{
    for (size_t at = 0; at < pages * WORDS; at++)
        memory[at] = value;
}

/* Reads every word: that of each `step`-th page is `written`, if it is the page's first one, all
   others are `value`. By one * instruction for each word, here as in the guest, so that two
   compilers' idea of a loop makes no difference. */
static void verify(const uint64_t *memory, size_t pages, uint64_t value, size_t step, uint64_t written)
{
    for (size_t page = 0; page < pages; page++) {
        const uint64_t *words = memory + page * WORDS;
        uint64_t first = page % step == 0 ? written : value;
        const uint64_t *at = words + 1;
        size_t left = WORDS - 1;
        uint8_t same;
        __asm__ volatile("repe scasq" : "+D"(at), "+c"(left), "=@ccz"(same) : "a"(value) : "memory");
        if (words[0] != first || !same)
            fail("wrong contents");
    }
}

static void write_pages(uint64_t *memory, size_t pages, size_t step, uint64_t value)
{
    for (size_t page = 0; page < pages; page += step)
        memory[page * WORDS] = value;
}

static void reap(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("the child has failed");
}

/* Measures the cost of a cycle of fork, exit and wait, again and again. */
static void rate(int rounds)
{
    for (int round = 0; round < rounds; round++) {
        uint64_t began = __rdtsc();
        for (int cycle = 0; cycle < CYCLES; cycle++) {
            pid_t child = fork();
            if (child < 0)
                fail("fork");
            if (child == 0)
                _exit(0);
            reap(child);
        }
        printf("sample fork_rate %llu\n", (unsigned long long)(__rdtsc() - began) / CYCLES);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *row = argv[1];
    int rounds = atoi(argv[2]);
    int both_write = strcmp(row, "fork_write") == 0;
    int dirty = both_write || strcmp(row, "fork_dirty") == 0;
    size_t pages = (strcmp(row, "fork_256") == 0 ? 256 : 4) * (size_t)MIB / PAGE;
    uint64_t *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* Written by the child, read by the parent: when the child was done. */
    volatile uint64_t *child_end = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || child_end == MAP_FAILED)
        fail("mmap");

    touch(memory, pages, 1);
    if (strcmp(row, "fork_rate") == 0) {
        rate(rounds);
        return 0;
    }
    for (int round = 0; round < rounds; round++) {
        uint64_t value = 1;
        if (dirty)
            touch(memory, pages, value = round + 2);
        *child_end = 0;
        uint64_t began = __rdtsc();
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            if (both_write) {
                write_pages(memory, pages, 4, 1ull << 32);
                verify(memory, pages, value, 4, 1ull << 32);
                *child_end = __rdtsc();
            }
            _exit(0);
        }
        if (both_write) {
            write_pages(memory, pages, 4, 1ull << 33);
            verify(memory, pages, value, 4, 1ull << 33);
        }
        uint64_t ended = __rdtsc();
        reap(child);
        if (*child_end > ended)
            ended = *child_end;
        printf("sample %s %llu\n", row, (unsigned long long)(ended - began));
    }
    return 0;
}
