/* lz4's own tests. Those of blocks look at what is not public. */
#ifndef PUBLIC_ONLY
#define main fuzzer_main
#include "tests/fuzzer.c"
#undef main
#else
#include <stdio.h>
#endif

int frames_main(int argc, const char **argv);

int main(void)
{
    const char *frames[] = {"frametest", "--no-prompt", "-vv", "-s5", "-i10"};
    int result = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
#ifndef PUBLIC_ONLY
    const char *blocks[] = {"fuzzer", "--no-prompt", "-s3", "-i25"};
    FUZ_unitTests(LZ4HC_CLEVEL_DEFAULT);
    FUZ_unitTests(LZ4HC_CLEVEL_OPT_MIN);
    result = fuzzer_main(4, blocks);
#endif
    return result != 0 ? result : frames_main(5, frames);
}
