/* A library that is large, and nearly all of it constant: what its pages are depends on VERSION. */
#ifndef VERSION
#define VERSION 1
#endif

const unsigned char bulk_constants[1 << 20] = {[0 ... (1 << 20) - 1] = VERSION};
int bulk_variable = 40;

/* 256 KiB of instructions that do nothing. */
__asm__(".globl bulk_walk\n.type bulk_walk, @function\nbulk_walk: .skip 262144, 0x90\nret\n.size bulk_walk, . - bulk_walk\n");

int bulk_version(void)
{
    return VERSION;
}

unsigned long bulk_sum(void)
{
    unsigned long sum = 0;
    for (unsigned long at = 0; at < sizeof(bulk_constants); at++)
        sum += ((const volatile unsigned char *)bulk_constants)[at];
    return sum;
}

int bulk_next(void)
{
    return ++bulk_variable;
}
