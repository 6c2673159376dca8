/* Needs `base`, and things that only a loader can give: tables of pointers, a weak symbol that nobody defines, a function that is chosen when it is loaded,
 * a function of the image. */
#include "libraries.h"

extern void nobody_defines_this(void) __attribute__((weak));

__attribute__((constructor(101))) static void first(void)
{
    test_note('m');
}

__attribute__((constructor(102))) static void second(void)
{
    test_note('n');
}

__attribute__((destructor)) static void end(void)
{
    test_note('M');
}

static int twice(int a)
{
    return 2 * a;
}

static int thrice(int a)
{
    return 3 * a;
}

int (*const middle_table[])(int) = {twice, thrice};

static int chosen_one(void)
{
    return 1234;
}

static int (*choose(void))(void)
{
    return chosen_one;
}

int middle_chosen(void) __attribute__((ifunc("choose")));

/* All of it at once: 0, or the number of what is wrong. */
int middle_check(void)
{
    if (nobody_defines_this)
        return 1;
    if (middle_table[0](7) != 14 || middle_table[1](7) != 21)
        return 2;
    if (middle_chosen() != 1234)
        return 3;
    if (base_pointer != &base_numbers[1] || *base_pointer != 2)
        return 4;
    int before = base_numbers[3];
    if (base_add(20, 22) != 42 || base_add(-1, 1) != 0 || base_numbers[3] != before + 2)
        return 5;
    return 0;
}

/* Floating-point arguments and results go through a function's first call unharmed. */
double middle_scale(double a, double b, double c, double d, double e, double f, double g, double h)
{
    return middle_sum(a, b, c, d, e, f, g, h) + base_add(1, 1);
}

double middle_sum(double a, double b, double c, double d, double e, double f, double g, double h)
{
    return a + 10 * b + 100 * c + 1000 * d + 1e4 * e + 1e5 * f + 1e6 * g + 1e7 * h;
}

int middle_counter(void)
{
    return base_counter;
}
