/* A library of which there are two versions, and some that do not fit. */
#ifndef VERSION
#define VERSION 1
#endif
#ifndef COUNT
#define COUNT 4
#endif

/* The versions have their variables at different places, in whichever order the compiler puts them. */
static int before[8 * VERSION] __attribute__((used)) = {1};
int live_numbers[COUNT] = {VERSION};
static int behind[8 * VERSION] __attribute__((used)) = {1};
int live_other = VERSION;
__thread int live_mine = VERSION;

int live_call(void)
{
    return live_numbers[0];
}

int (*const live_own)(void) = live_call;

#ifndef MISSING
int live_more(void)
{
    return live_call() + 1;
}
#endif

#ifdef VARIABLE
int live_turned;
#else
int live_turned(void)
{
    return VERSION;
}
#endif

static int chosen(void)
{
    return VERSION;
}

static int (*choose(void))(void)
{
    return chosen;
}

int live_chosen(void) __attribute__((ifunc("choose")));
