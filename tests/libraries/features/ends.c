/* Everything that is called when an object comes and goes. `setup` names the outermost functions to the linker. */
#include <stdlib.h>

void trace(int number);

void outermost_begin(void) { trace(1); }
void outermost_end(void) { trace(-1); }

static void registered(void) { trace(-5); }

__attribute__((constructor)) static void begin(void)
{
    trace(4);
    atexit(registered);
}
__attribute__((constructor(202))) static void begin_late(void) { trace(3); }
__attribute__((constructor(201))) static void begin_early(void) { trace(2); }
__attribute__((destructor)) static void end(void) { trace(-4); }
__attribute__((destructor(202))) static void end_early(void) { trace(-3); }
__attribute__((destructor(201))) static void end_late(void) { trace(-2); }
