// Leaf functions with data on the stack, where a compiler may use the red zone.

int exported_leaf(int x) {
    volatile int data[8];
    data[x & 7] = x;
    return data[0];
}

static __attribute__((noinline)) long inner(const char *text) {
    volatile long sum = 0;
    while (*text)
        sum += *text++;
    return sum;
}

long outer(const char *text) { return inner(text) + inner(text + 1); }
