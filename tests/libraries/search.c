/* An application that looks for what secret.c leaves: on its stack, in all of the heap that it can get. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 8192 };

static size_t found, words;

static void look(const volatile uint64_t *from, size_t count)
{
    /* In halves, so that the number is nowhere in this object. */
    volatile uint32_t half = 0x5ec4e75e;
    for (size_t word = 0; word < count; word++)
        found += (uint32_t)from[word] == half && from[word] >> 32 == half;
    words += count;
}

int main(void)
{
    volatile uint64_t stack[512];
    look(stack, 512);
    for (uint64_t *block; (block = malloc(BLOCK));)
        look(block, BLOCK / sizeof *block);
    printf("search: %zu of %zu KiB\n", found, words / 128);
    fflush(stdout);
    _Exit(found != 0);
}
