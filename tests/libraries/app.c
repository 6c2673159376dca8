/* An application as a shared object: says its words, and ends with their number. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>

static void end(int status, void *argument)
{
    (void)argument;
    printf("app: %d at the end\n", status);
}

__attribute__((destructor)) static void destroyed(void)
{
    puts("app: destroyed");
}

int main(int argc, char **argv)
{
    on_exit(end, 0);
    for (int word = 0; word < argc; word++)
        printf("app: %s\n", argv[word]);
    if (argv[argc])
        return 99;
    return argc;
}
