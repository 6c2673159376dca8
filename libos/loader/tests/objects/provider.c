// The needs of `features.c`: functions in two versions, a chosen function, variables of each kind.
#include <stdarg.h>

int provided_data[4] = {1, 2, 3, 4};
__thread int provided_tls = 5;
__thread char provided_more[100];

int old_twice(int x) { return x + x + 1000; }
int new_twice(int x) { return 2 * x; }
__asm__(".symver old_twice, twice@VERS_1");
__asm__(".symver new_twice, twice@@VERS_2");

static int quick(void) { return 1; }
static int slow(void) { return 2; }
static int (*choose(void))(void) { return provided_data[0] ? quick : slow; }
int chosen(void) __attribute__((ifunc("choose")));

int overridden(void) { return 1; }
__attribute__((visibility("protected"))) int guarded(void) { return 3; }
__attribute__((visibility("hidden"))) int hidden(void) { return 4; }
int calls_hidden(void) { return hidden() + 10 * overridden() + 1000 * guarded(); }

// Takes registers of both kinds, one that says how many, and the stack.
double summed(int count, ...) {
    double sum = 0;
    va_list list;
    va_start(list, count);
    while (count--) {
        sum = 3 * sum + va_arg(list, int);
        sum = 3 * sum + va_arg(list, double);
    }
    va_end(list);
    return sum;
}
