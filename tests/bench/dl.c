/* Opens a library as tests/guests/src/bin/bench_dl.rs does, and prints the same lines.
 *
 * Arguments: PATH SAMPLES.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

enum { TIMES = 10 };

static unsigned long long open_it(const char *path)
{
    unsigned long long begin = __rdtsc();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unsigned long long ticks = __rdtsc() - begin;
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    dlclose(library);
    return ticks;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: dl PATH SAMPLES\n");
        return 2;
    }
    printf("first %llu\n", open_it(argv[1]));
    for (int sample = 0; sample < atoi(argv[2]); sample++) {
        unsigned long long sum = 0;
        for (int time = 0; time < TIMES; time++)
            sum += open_it(argv[1]);
        printf("sample %llu\n", sum / TIMES);
    }
    return 0;
}
