/* The library that `middle` needs: data, a function, thread-local variables, a constructor and a
   destructor that say when they run. */
#include "libraries.h"

int base_numbers[4] = {1, 2, 3};
int *base_pointer = &base_numbers[1];
__thread int base_counter = 40;
static __thread char zeroed[64];

__attribute__((constructor)) static void begin(void)
{
    test_note('b');
}

__attribute__((destructor)) static void end(void)
{
    test_note('B');
}

int base_add(int a, int b)
{
    base_numbers[3]++;
    return a + b;
}

/* The next number, if the variable that begins as zero goes along. */
int base_count(void)
{
    base_counter++;
    return ++zeroed[63] == base_counter - 40 ? base_counter : -1;
}
