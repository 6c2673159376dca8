/* Has a function (SOUGHT is what it returns), or uses it if somebody has it. */
#ifdef SOUGHT
int sought(void) { return SOUGHT; }
#else
#include <dlfcn.h>
#include <stddef.h>

__attribute__((weak)) int sought(void);

int seek(void) { return sought ? sought() : 0; }
int seek_by_name(void) { return dlsym(NULL, "sought") == (void *)sought; }
#endif

static int count;

int next(void) { return ++count; }
