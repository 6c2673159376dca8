/* SQLite's own program that measures and, as it is used here, checks. */
#define main speedtest1_main
#include "test/speedtest1.c"
