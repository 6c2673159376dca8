/* Uses the C runtime of the image, as any C library does: compiled against the headers of the build
   machine's. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands for the compiler's crtbeginS.o, which is linked into objects by default: functions
   registered with `atexit` run when the object goes. */
__attribute__((visibility("hidden"))) void *__dso_handle = &__dso_handle;
void __cxa_finalize(void *);

__attribute__((destructor)) static void end(void)
{
    __cxa_finalize(__dso_handle);
}

static int by_length(const void *a, const void *b)
{
    size_t first = strlen(*(char *const *)a), second = strlen(*(char *const *)b);
    return (first > second) - (first < second);
}

static jmp_buf place;

__attribute__((noreturn)) static void jump(int value)
{
    longjmp(place, value);
}

static void at_end(void)
{
    puts("runtime: at the end");
}

__attribute__((constructor)) static void begin(void)
{
    atexit(at_end);
}

/* 0, or the number of what is wrong. */
int runtime_check(void)
{
    char text[128];
    if (snprintf(text, sizeof text, "%s %05d %-6s|%.3f %g %#x", "a", 42, "b", 2.5, 1e100, 255) != 32 ||
        strcmp(text, "a 00042 b     |2.500 1e+100 0xff") != 0)
        return printf("runtime: \"%s\"\n", text), 1;
    char *words[] = {"ccc", "a", "dddd", "bb"};
    qsort(words, 4, sizeof *words, by_length);
    if (strcmp(words[0], "a") != 0 || strcmp(words[3], "dddd") != 0)
        return 2;
    char *memory = malloc(100000);
    memset(memory, 7, 100000);
    memory = realloc(memory, 300000);
    if (memory == NULL || memory[99999] != 7)
        return 3;
    free(memory);
    errno = 0;
    if (strtol("99999999999999999999", NULL, 10) != 0x7fffffffffffffff || errno != ERANGE)
        return 4;
    if (fabs(sin(1.0) - 0.8414709848078965) > 1e-15 || pow(2.0, 10.0) != 1024.0)
        return 5;
    int came = setjmp(place);
    if (came == 0)
        jump(17);
    if (came != 17)
        return 6;
    return 0;
}
