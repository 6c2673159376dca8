/* lz4's own tests of blocks. */
#define main fuzzer_main
#include "tests/fuzzer.c"
#undef main

int frames_main(int argc, const char **argv);

int main(void)
{
    const char *blocks[] = {"fuzzer", "--no-prompt", "-s3", "-i25"};
    const char *frames[] = {"frametest", "--no-prompt", "-s5", "-i10"};

    setvbuf(stdout, NULL, _IOLBF, 0);
    FUZ_unitTests(LZ4HC_CLEVEL_DEFAULT);
    FUZ_unitTests(LZ4HC_CLEVEL_OPT_MIN);
    int result = fuzzer_main(4, blocks);
    return result != 0 ? result : frames_main(4, frames);
}
