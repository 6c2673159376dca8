/* An application that leaves its mark everywhere: in variables, on the stack, in all of the heap that it can get. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 8192 };

/* Not a number that code contains: search.c looks for it in all memory. */
static uint64_t mark(void)
{
    volatile uint64_t half = 0x5ec4e75e;
    return half << 32 | half;
}

static uint64_t variables[BLOCK];

static void fill(uint64_t *words, size_t count)
{
    for (size_t word = 0; word < count; word++)
        words[word] = mark();
}

int main(void)
{
    volatile uint64_t stack[512];
    fill((uint64_t *)stack, 512);
    fill(variables, BLOCK);
    size_t blocks = 0;
    for (uint64_t *block; (block = malloc(BLOCK)); blocks++)
        fill(block, BLOCK / sizeof *block);
    printf("secret: %s in %zu blocks\n", stack[7] == mark() && variables[7] == mark() ? "left" : "lost", blocks);
    fflush(stdout);
    _Exit(0);
}
