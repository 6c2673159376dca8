/* Functions for the special handles of the loader: what comes after this object, and a symbol that is one for the whole process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

int sought(void) { return 43; }

int next_sought(void)
{
    int (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, "sought");
    return next ? next() : -1;
}

int next_nothing(void) { return dlsym(RTLD_NEXT, "next_sought") == NULL; }
int next_runtime(void) { return dlsym(RTLD_NEXT, "strlen") == (void *)strlen; }

__asm__(".pushsection .data\n"
        ".balign 4\n"
        ".globl unique\n"
        ".type unique, @gnu_unique_object\n"
        ".size unique, 4\n"
        "unique: .long 0\n"
        ".popsection");
extern int unique;

int next_unique(void) { return ++unique; }
