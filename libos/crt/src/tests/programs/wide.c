/* Wide characters, locales as objects, and threads, as libstdc++ uses them. */
#define _GNU_SOURCE
#include <errno.h>
#include <langinfo.h>
#include <libintl.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>
#include <wctype.h>

/* Of glibc, without a declaration. */
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);

static void single(void)
{
    for (int octet = 0; octet < 128; octet++)
        printf("%u %d\n", btowc(octet), wctob(octet));
    printf("%d %d %d\n", btowc(EOF) == WEOF, wctob(0x100), wctob(WEOF));
    static const char *const names[] = {"alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit"};
    for (unsigned each = 0; each < sizeof names / sizeof *names; each++) {
        wctype_t type = wctype(names[each]);
        printf("%s", names[each]);
        for (wint_t wide = 0; wide < 0x180; wide++)
            putchar(iswctype(wide, type) ? '1' : '0');
        putchar('\n');
    }
    printf("%d %d\n", wctype("nothing") == 0, iswctype('a', 0));
    for (wint_t wide = 0; wide < 0x180; wide++)
        printf("%x %x\n", towlower(wide), towupper(wide));
}

static void several(void)
{
    wchar_t wide[32];
    char narrow[32];
    mbstate_t state = {0};
    const char *text = "a text";
    printf("%zu\n", mbsrtowcs(NULL, &text, 0, &state));
    printf("%zu %d", mbsrtowcs(wide, &text, 32, &state), text == NULL);
    printf(" %zu %d\n", wcslen(wide), wide[2]);
    text = "a text";
    printf("%zu %s\n", mbsrtowcs(wide, &text, 3, &state), text);
    text = "a text";
    printf("%zu %s\n", mbsnrtowcs(wide, &text, 4, 32, &state), text);
    const wchar_t *from = L"more text";
    printf("%zu\n", wcsrtombs(NULL, &from, 0, &state));
    printf("%zu %d %s\n", wcsrtombs(narrow, &from, 32, &state), from == NULL, narrow);
    from = L"more text";
    printf("%zu %d\n", wcsnrtombs(narrow, &from, 4, 32, &state), from != NULL);
    errno = 0;
    from = L"ab\x20ac";
    printf("%zd %d %d\n", (ssize_t)wcsrtombs(narrow, &from, 32, &state), errno == EILSEQ, *from == 0x20ac);
    memset(&state, 0, sizeof state);
    printf("%zu %zd %zu", mbrtowc(wide, "x", 1, &state), (ssize_t)mbrtowc(wide, "x", 0, &state), mbrtowc(wide, "", 1, &state));
    printf(" %zu %zu\n", wcrtomb(narrow, L'y', &state), wcrtomb(NULL, L'y', &state));
    printf("%d %d %d %d\n", wcscmp(L"a", L"b") < 0, wcscmp(L"b", L"a") > 0, wcscmp(L"a", L"a"), wcscoll(L"ab", L"a") > 0);
    printf("%zu", wcsxfrm(wide, L"abc", 32));
    printf(" %d\n", wcscmp(wide, L"abc"));
    printf("%d", wmemchr(L"abcd", L'c', 4) != NULL);
    printf(" %d %d\n", wmemchr(L"abcd", L'c', 2) == NULL, wmemcmp(L"abc", L"abd", 3) < 0);
    wmemset(wide, L'z', 5);
    wmemcpy(wide + 1, L"qr", 2);
    wmemmove(wide + 2, wide + 1, 2);
    wide[5] = 0;
    from = wide;
    wcsrtombs(narrow, &from, 32, &state);
    puts(narrow);
    struct tm tm = {.tm_year = 100, .tm_mon = 1, .tm_mday = 3};
    printf("%zu", wcsftime(wide, 32, L"%Y-%m-%d", &tm));
    from = wide;
    wcsrtombs(narrow, &from, 32, &state);
    printf(" %s %zu\n", narrow, wcsftime(wide, 3, L"%Y-%m-%d", &tm));
    putwc(L'w', stdout);
    putwc(L'\n', stdout);
}

static void locales(void)
{
    locale_t locale = newlocale(LC_ALL_MASK, "C", NULL);
    printf("%d %d", locale != NULL, newlocale(LC_ALL_MASK, "xx_YY", NULL) == NULL);
    printf(" %d %d\n", uselocale(NULL) == LC_GLOBAL_LOCALE, duplocale(locale) != NULL);
    printf("%d %d", locale->__ctype_toupper['a'], locale->__ctype_tolower['A']);
    printf(" %d %s\n", (locale->__ctype_b['x'] & locale->__ctype_b['y']) != 0, nl_langinfo_l(0x10000, locale));
    char to[32];
    struct tm tm = {.tm_year = 100, .tm_mon = 1, .tm_mday = 3};
    printf("%zu %s", strftime_l(to, 32, "%d.%m.", &tm, locale), to);
    printf(" %d %zu", strcoll_l("a", "b", locale) < 0, strxfrm_l(to, "abc", 32, locale));
    printf(" %g %g %d\n", strtod_l("2.5x", NULL, locale), strtof_l("1.25", NULL, locale), strtold_l("0.5", NULL, locale) == 0.5L);
    freelocale(locale);
    puts(gettext("untranslated"));
    puts(dgettext("nowhere", "untranslated, too"));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int sum, destroyed[4];

static void destroy(void *variable)
{
    pthread_mutex_lock(&mutex);
    destroyed[*(int *)variable]++;
    pthread_mutex_unlock(&mutex);
}

static void *add(void *argument)
{
    static _Thread_local int variable;
    variable = (int)(long)argument;
    __cxa_thread_atexit_impl(destroy, &variable, add);
    for (int round = 0; round < 1000; round++) {
        pthread_mutex_lock(&mutex);
        sum += variable;
        pthread_mutex_unlock(&mutex);
    }
    return pthread_equal(pthread_self(), pthread_self()) ? argument : NULL;
}

static void *nothing(void *argument)
{
    return argument;
}

static void threads(void)
{
    pthread_t threads[4];
    void *results[4];
    for (long each = 0; each < 4; each++)
        printf("%d ", pthread_create(&threads[each], NULL, nothing, (void *)(each + 1)));
    for (int each = 0; each < 4; each++)
        printf("%d %ld ", pthread_join(threads[each], &results[each]), (long)results[each]);
    putchar('\n');
    for (long each = 0; each < 4; each++)
        pthread_create(&threads[each], NULL, add, (void *)each);
    for (int each = 0; each < 4; each++)
        pthread_join(threads[each], NULL);
    printf("%d, %d %d %d %d\n", sum, destroyed[0], destroyed[1], destroyed[2], destroyed[3]);
    printf("%d %d\n", pthread_join(pthread_self(), NULL) != 0, pthread_create(&threads[0], NULL, nothing, NULL));
    printf("%d\n", pthread_detach(threads[0]));
}

static void fractions(void)
{
    static const long double all[] = {0.0L, -0.0L, 1.0L, -3.75L, 1e300L, 3.6e-4951L, 1.0L / 0.0L, 0.1L};
    for (unsigned each = 0; each < sizeof all / sizeof *all; each++) {
        int exponent = -1;
        long double fraction = frexpl(all[each], &exponent);
        unsigned char octets[sizeof fraction] = {0};
        memcpy(octets, &fraction, 10);
        for (int octet = 0; octet < 10; octet++)
            printf("%02x", octets[octet]);
        if (each != 6)
            printf(" %d", exponent);
        putchar('\n');
    }
}

int main(void)
{
    fractions();
    single();
    several();
    locales();
    threads();
    return 0;
}
