/* Opens and closes others while it comes and goes. HELD is open for as long as it is itself; OTHER is opened and closed in its destructor. */
#include <dlfcn.h>
#include <stddef.h>

void trace(int number);

#ifdef HELD
static void *held;

__attribute__((constructor)) static void begin(void)
{
    held = dlopen(HELD, RTLD_NOW);
    trace(held ? 61 : 60);
}

__attribute__((destructor)) static void end(void)
{
    trace(-61);
    trace(dlclose(held) == 0 ? -62 : -60);
}
#else
__attribute__((destructor)) static void end(void)
{
    trace(-71);
    void *other = dlopen(OTHER, RTLD_NOW);
    trace(other ? -72 : -70);
    if (other)
        trace(dlclose(other) == 0 ? -73 : -70);
}
#endif
