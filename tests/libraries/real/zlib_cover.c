/* zlib's test that goes through all of `inflate`. */
#define main infcover_main
#include "test/infcover.c"
