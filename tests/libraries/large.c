/* Thread-local variables for which no thread has a place: each gets them when it asks. */
__thread int large_first = 5;
__thread char large_block[8192] __attribute__((aligned(128)));
__thread int large_last = 6;

int large_next(void)
{
    if ((unsigned long)large_block % 128 || large_block[8191] != (char)(large_last - 6))
        return -1;
    large_block[8191]++;
    large_last++;
    return ++large_first;
}
