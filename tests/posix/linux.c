/* The cases as Linux processes. Usage: posix TOPIC [SEED]. */
#include "posix.h"

#include <stdlib.h>

int main(int count, char **words)
{
    if (count < 2)
        return 2;
    /* A shell's background jobs ignore some. */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    /* Output is printed once, whoever forks. */
    setvbuf(stdout, NULL, _IONBF, 0);
    return posix_main(words[1], count > 2 ? strtoul(words[2], NULL, 10) : 1) != 0;
}
