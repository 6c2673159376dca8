/* A library that is replaced while it is in use. VERSION is what it says of itself; the others make versions that do not fit. */
#include "live.h"
#include "libraries.h"

#ifndef VERSION
#define VERSION 1
#endif

void *dlsym(void *library, const char *name);

#ifdef SMALLER
int live_numbers[2] = {VERSION, 10 * VERSION};
#else
/* The versions have it at different places, in whichever order the compiler puts them. */
static int before[4 * VERSION] __attribute__((used)) = {VERSION};
int live_numbers[4] = {VERSION, 10 * VERSION, 100 * VERSION, 1000 * VERSION};
static int behind[4 * VERSION] __attribute__((used)) = {VERSION};
#endif

static __thread int mine = 7 * VERSION;
static int counter;

__attribute__((constructor)) static void begin(void)
{
    test_note('0' + VERSION);
}

__attribute__((destructor)) static void end(void)
{
    test_note('A' + VERSION - 1);
}

int live_version(void)
{
    return VERSION;
}

int live_version_again(void)
{
    return live_numbers[0] == VERSION && live_version() == VERSION ? VERSION : -1;
}

int live_mine(void)
{
    return mine;
}

#ifndef MISSING
int live_count(void)
{
    return __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
}
#endif

int live_counter(void)
{
    return counter;
}

int live_spin(int rounds)
{
    for (volatile int round = 0; round < rounds; round++)
        ;
    return VERSION;
}

int live_call(int (*function)(void))
{
    int result = function();
    return result == 0 ? VERSION : -result;
}

static int inside(void)
{
    return VERSION;
}

const void *live_inside(void)
{
    return inside;
}

static int (*choose(void))(void)
{
    return inside;
}

int live_chosen(void) __attribute__((ifunc("choose")));

#if VERSION > 1 || defined(MIGRATES)
int migrate(void *old, void *new)
{
    int (*counter_of_old)(void) = dlsym(old, "live_counter");
    int (*version_of_old)(void) = dlsym(old, "live_version");
    int (*version_of_new)(void) = dlsym(new, "live_version");
    if (version_of_new() != VERSION || version_of_old() == VERSION)
        return -1;
    counter = counter_of_old();
    test_note('m');
#ifdef REFUSES
    return REFUSES;
#endif
    return 0;
}
#endif
