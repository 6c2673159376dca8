/* Calls of the runtime, header by header. The output must be the same with the C library and with
   the runtime. */
#define _GNU_SOURCE
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static jmp_buf place;
static sigjmp_buf other_place;

__attribute__((noinline)) static void deep(int depth) {
    char room[100];
    snprintf(room, sizeof room, "depth %d", depth);
    if (depth == 0)
        longjmp(place, 42);
    deep(depth - 1);
    puts(room); /* never reached */
}

static void jumps(void) {
    volatile int count = 0;
    register long kept = 1234567;
    double real = 2.5;
    int value = setjmp(place);
    printf("setjmp %d, count %d, kept %ld, real %g\n", value, count, kept, real);
    if (value == 0) {
        count = 1;
        deep(20);
    } else if (count < 3) {
        count++;
        longjmp(place, count == 3 ? 0 : count);
    }
    if (sigsetjmp(other_place, 1) == 0)
        siglongjmp(other_place, 7);
    puts("jumped");
}

static int by_length(const void *one, const void *other) {
    const char *const *a = one, *const *b = other;
    return (int)strlen(*a) - (int)strlen(*b);
}

static int with(const void *one, const void *other, void *factor) {
    return *(int *)factor * (*(const int *)one - *(const int *)other);
}

static void list(const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    char text[200], *made;
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int same = vasprintf(&made, format, again);
    va_end(again);
    printf("%d %d %s %s\n", length, same, text, made);
    free(made);
}

static void text(void) {
    char room[64];
    strcpy(room, "one,two;;three");
    char *rest, *token;
    for (token = strtok_r(room, ",;", &rest); token; token = strtok_r(NULL, ",;", &rest))
        printf("[%s]", token);
    putchar('\n');
    stpcpy(stpcpy(room, "stpcpy "), "twice");
    strcat(room, "!");
    strncat(room, "abcdef", 3);
    puts(room);
    printf("%s|%s|%s\n", strchr(room, 't'), strrchr(room, 't'), strstr(room, "tw"));
    printf("%s %s %d\n", strerror(ENOENT), strerror(ERANGE), strcasecmp("HeLLo", "hEllO"));
    const char *words[] = {"ccc", "a", "bb", "dddd", "e", "ff", "ggg"};
    qsort(words, 7, sizeof *words, by_length);
    for (int i = 0; i < 7; i++)
        printf("%s ", words[i]);
    int numbers[] = {5, 2, 8, 1, 9}, factor = -1;
    qsort_r(numbers, 5, sizeof *numbers, with, &factor);
    for (int i = 0; i < 5; i++)
        printf("%d ", numbers[i]);
    putchar('\n');
    for (int c = 0; c < 128; c++)
        fputc("0123456789abcdef"[(!!isalpha(c) << 3) | (!!isdigit(c) << 2) | (!!ispunct(c) << 1) | !!isspace(c)], stdout);
    printf(" %c%c\n", toupper('q'), tolower('Q'));
}

static void numbers(void) {
    char *end;
    errno = 0;
    long value = strtol("  -12345678901234567890x", &end, 10);
    printf("%ld %s %d\n", value, end, errno == ERANGE);
    printf("%lu %lld %d %ld\n", strtoul("0xffffffffffffffff", NULL, 0), strtoll("777", NULL, 8), atoi("-42z"), atol("99"));
    printf("%.17g %.9g %.17g %s\n", strtod("3.14159265358979323846xyz", &end), strtof("1e-10", NULL), atof("-0x1.8p3"), end);
    long double wide = strtold("0.1", NULL);
    printf("%.10Lf %Lg %Le\n", wide, (long double)1e300, 123.456L);
    int a, b;
    double real;
    float single;
    char word[20], set[20];
    int count = sscanf("10 0x1f 2.5 1.25 hello [a-z] 77", "%d %i %lf %f %19s [%19[^]]] %n", &a, &b, &real, &single, word, set, &a);
    printf("%d %d %d %g %g %s %s\n", count, a, b, real, single, word, set);
    printf("%" PRId64 " %" PRIx64 " %zu %td %hhd %hd\n", INT64_MIN, UINT64_MAX, sizeof a, &word[3] - word, (signed char)300, (short)70000);
    printf("%5d|%-5d|%05d|%+d|% d|%#x|%#o|%.3d|%*d|%-*d|%.*f\n", 42, 42, 42, 42, 42, 42, 42, 7, 6, 42, 6, 42, 2, 2.675);
    printf("%e %G %a %f %g %g\n", 12345.678, 1e-10, 0.1, 1e20, 100000.0, 1000000.0);
    list("%d %s %f %d %d %d %d %f %s", 1, "two", 3.0, 4, 5, 6, 7, 8.0, "nine");
    div_t divided = div(-17, 5);
    ldiv_t divided_long = ldiv(-17L, 5);
    printf("%d %d %ld %ld %d\n", divided.quot, divided.rem, divided_long.quot, divided_long.rem, abs(-3));
    srand(1);
    for (int i = 0; i < 5; i++)
        printf("%d ", rand());
    srand(4000000000u);
    for (int i = 0; i < 400; i++)
        rand();
    unsigned seed = 99;
    printf("%d %d %d\n", rand(), rand_r(&seed), rand_r(&seed));
    printf("%.10g %.10g %.10g %.10g %d %d %d\n", sin(1), pow(2, 0.5), exp(1), fmod(10, 3), !!isnan(NAN), !!isinf(-INFINITY), fpclassify(5e-324) == FP_SUBNORMAL);
}

static void memory(void) {
    char *block = malloc(10);
    strcpy(block, "grown");
    block = realloc(block, 100000);
    int *zeros = calloc(1000, sizeof *zeros), sum = 0;
    for (int i = 0; i < 1000; i++)
        sum += zeros[i];
    void *aligned;
    int result = posix_memalign(&aligned, 4096, 10);
    printf("%s %d %d %d\n", block, sum, result, (int)((uintptr_t)aligned % 4096));
    free(block);
    free(zeros);
    free(aligned);
    free(NULL);
    block = strdup("copied");
    printf("%s %zu\n", block, strlen(block));
    free(block);
}

static void times(void) {
    time_t moment = 1700000000;
    struct tm parts;
    char room[100];
    gmtime_r(&moment, &parts);
    strftime(room, sizeof room, "%Y-%m-%d %H:%M:%S %a %b %j %U %V", &parts);
    printf("%s %ld %s", room, (long)mktime(&parts), asctime(&parts));
    struct timespec one, other;
    clock_gettime(CLOCK_MONOTONIC, &one);
    clock_gettime(CLOCK_MONOTONIC, &other);
    struct timeval now;
    gettimeofday(&now, NULL);
    printf("%d %d\n", other.tv_sec > one.tv_sec || (other.tv_sec == one.tv_sec && other.tv_nsec >= one.tv_nsec), labs(now.tv_sec - time(NULL)) < 2);
}

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static void threads(void) {
    pthread_mutex_t made;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&made, &kind);
    int results[8], count = 0;
    results[count++] = pthread_mutex_lock(&made);
    results[count++] = pthread_mutex_lock(&made);
    results[count++] = pthread_mutex_unlock(&made);
    results[count++] = pthread_mutex_lock(&plain);
    results[count++] = pthread_mutex_trylock(&plain);
    results[count++] = pthread_mutex_unlock(&plain);
    results[count++] = pthread_mutex_lock(&recursive);
    results[count++] = pthread_mutex_trylock(&recursive);
    for (int i = 0; i < count; i++)
        printf("%d ", results[i]);
    putchar('\n');
}

static void files(void) {
    struct stat status;
    FILE *file = fopen("/no/such/file", "r");
    printf("%d %d ", file == NULL, errno == ENOENT);
    printf("%d %d ", open("/no/such/file", O_RDONLY), errno == ENOENT);
    printf("%d %d ", stat("/no/such/file", &status), errno == ENOENT);
    printf("%d %d\n", close(99), errno == EBADF);
    printf("%s %d %ld\n", getenv("ZOOID_TEST"), getenv("ZOOID_NONE") == NULL, sysconf(_SC_PAGESIZE));
    setenv("ZOOID_NEW", "set", 1);
    printf("%s %s %s\n", getenv("ZOOID_NEW"), setlocale(LC_ALL, "C"), localeconv()->decimal_point);
}

static void at_end(void) { puts("never: the object's handlers run when it goes"); }

int main(void) {
    jumps();
    text();
    numbers();
    memory();
    times();
    threads();
    files();
    putc_unlocked('u', stdout);
    putchar_unlocked('\n');
    fprintf(stdout, "%s %d\n", "fprintf", ferror_unlocked(stdout));
    fwrite("written\n", 4, 2, stdout);
    (void)at_end;
    assert(errno != -1);
    return 3;
}
