// Correct code that looks as if it used the red zone: variadic functions that read vector registers
// alone, and an array at the bottom of a frame.
#include <stdarg.h>

double sum(int count, ...) {
    va_list list;
    va_start(list, count);
    double sum = 0;
    while (count--)
        sum += va_arg(list, double);
    va_end(list);
    return sum;
}

double first(double other, ...) {
    va_list list;
    va_start(list, other);
    double first = va_arg(list, double);
    va_end(list);
    return first;
}

void fill(unsigned char *, long);

int last(long count) {
    unsigned char octets[64];
    fill(octets, count);
    return octets[count - 1] + octets[count - 2];
}
