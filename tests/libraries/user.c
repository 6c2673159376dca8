/* Refers to functions and variables of `live` in all ways there are. */
#include "live.h"

void *dlopen(const char *name, int flags);
int dlclose(void *library);
void zooid_library_enter(void *library);
void zooid_library_leave(void *library);

int *const user_constant = &live_numbers[1];
int *user_variable = &live_numbers[2];
int (*const user_functions[])(void) = {live_version, live_chosen};

/* 0 if all of it is of this version, or the number of what is not. */
int user_check(int version)
{
    if (*user_constant != 10 * version)
        return 1;
    if (*user_variable != 100 * version)
        return 2;
    if (live_numbers[3] != 1000 * version)
        return 3;
    if (user_functions[0]() != version || user_functions[1]() != version)
        return 4;
    if (live_version() != version || live_chosen() != version)
        return 5;
    return user_functions[0] != live_version;
}

/* The version, if it is the same before and after a call in a section. */
int user_in_section(int (*between)(void))
{
    void *live = dlopen("liblive.so", 2);
    if (!live)
        return -1;
    zooid_library_enter(live);
    int before = live_version();
    between();
    int after = user_check(before) == 0 ? live_version() : -1;
    zooid_library_leave(live);
    dlclose(live);
    return before == after ? before : -2;
}
