// Says when it is initialised and when it is finalised. NUMBER is its own; trace.c remembers.
extern void trace(int);

__attribute__((constructor)) static void begin(void) { trace(NUMBER); }
__attribute__((destructor)) static void end(void) { trace(-NUMBER); }
