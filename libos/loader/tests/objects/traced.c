// Reports its initialisation and its finalisation. NUMBER is its own; trace.c records the reports.
extern void trace(int);

__attribute__((constructor)) static void begin(void) { trace(NUMBER); }
__attribute__((destructor)) static void end(void) { trace(-NUMBER); }
