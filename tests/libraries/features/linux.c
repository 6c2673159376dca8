/* Opens the object that it is given, and calls its `main`, as
   tests/guests/src/bin/real_libraries.rs does in a guest. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static void *run(void *act)
{
    (*(void (**)(void))act)();
    return NULL;
}

void in_thread(void (*act)(void))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, &act) || pthread_join(thread, NULL))
        perror("no thread");
}

int main(int argc, char **argv)
{
    void *tests = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    int (*main_of_tests)(int, char **) = tests ? (int (*)(int, char **))dlsym(tests, "main") : NULL;
    if (!main_of_tests) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    return main_of_tests(1, (char *[]){argv[0], NULL});
}
