/* lz4's own tests of frames. */
#define main frames_main
#include "tests/frametest.c"
