/* All of libm, on numbers of every kind: what comes out, to the last bit, with errno and the exceptions of floating point. */
#define _GNU_SOURCE
#include <complex.h>
#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { NUMBERS = 4000 };
static double doubles[NUMBERS];

static uint64_t state;

static uint64_t random_bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* A quarter each of: the special ones, any bits at all, some around 1, and some that are no small angles. */
static void make_numbers(void)
{
    static const double special[] = {0.0, -0.0, 1.0, -1.0, 0.5, 2.0, INFINITY, -INFINITY, NAN, 0x1p-1074, 0x1p-1022, 0x1.fffffffffffffp1023,
                                     M_PI, M_PI_2, M_E, 709.78, 710.0, -745.13, -746.0, 1e22, 0x1p52, 0x1p53, -2.5, 170.6, 171.7};
    state = 1;
    for (int i = 0; i < NUMBERS; i++) {
        uint64_t bits = random_bits();
        double unit = (double)(bits >> 11) * 0x1p-53;
        switch (i % 4) {
        case 0:
            doubles[i] = special[i / 4 % (sizeof special / sizeof *special)];
            break;
        case 1:
            memcpy(&doubles[i], &bits, sizeof bits);
            break;
        case 2:
            doubles[i] = 4 * unit - 2;
            break;
        default:
            doubles[i] = (unit - 0.5) * 2000;
        }
    }
}

/* FNV-1a over results. An x87 number has 10 octets that count. */
static uint64_t hash;

static void add(const void *value, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const uint8_t *)value)[i]) * 0x100000001b3;
}

static void add_double(double value) { add(&value, sizeof value); }
static void add_float(float value) { add(&value, sizeof value); }
static void add_long_double(long double value) { add(&value, 10); }
static void add_long(long value) { add(&value, sizeof value); }
static void add_complex(double complex value) { add(&value, sizeof value); }
static void add_floats(float complex value) { add(&value, sizeof value); }

static void begin(void)
{
    hash = 0xcbf29ce484222325;
}

static void before(void)
{
    errno = 0;
    feclearexcept(FE_ALL_EXCEPT);
}

static void after(void)
{
    add_long(errno);
    add_long(fetestexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW));
}

static void end(const char *name)
{
    printf("%-12s %016llx\n", name, (unsigned long long)hash);
}

/* Of `double`, `float` and `long double`; each call by way of a variable, so that the compiler computes nothing by itself. */
#define EACH(type, number, expression, put)             \
    for (int i = 0; i < NUMBERS; i++) {                 \
        volatile type x = (type)(number), y = (type)doubles[(i * 7 + 3) % NUMBERS]; \
        (void)y;                                        \
        before();                                       \
        put(expression);                                \
        after();                                        \
    }

#define ONE(name)                                          \
    do {                                                   \
        begin();                                           \
        EACH(double, doubles[i], name(x), add_double)      \
        end(#name);                                        \
        begin();                                           \
        EACH(float, doubles[i], name##f(x), add_float)     \
        end(#name "f");                                    \
        begin();                                           \
        EACH(long double, doubles[i], name##l(x), add_long_double) \
        end(#name "l");                                    \
    } while (0)

#define TWO(name)                                          \
    do {                                                   \
        begin();                                           \
        EACH(double, doubles[i], name(x, y), add_double)   \
        end(#name);                                        \
        begin();                                           \
        EACH(float, doubles[i], name##f(x, y), add_float)  \
        end(#name "f");                                    \
        begin();                                           \
        EACH(long double, doubles[i], name##l(x, y), add_long_double) \
        end(#name "l");                                    \
    } while (0)

/* Of one number: what is no number of the same type. */
#define OTHER(name, expression, put)                       \
    do {                                                   \
        begin();                                           \
        EACH(double, doubles[i], expression, put)          \
        end(name);                                         \
    } while (0)

static void real(void)
{
    ONE(acos);
    ONE(acosh);
    ONE(asin);
    ONE(asinh);
    ONE(atan);
    ONE(atanh);
    ONE(cbrt);
    ONE(ceil);
    ONE(cos);
    ONE(cosh);
    ONE(erf);
    ONE(erfc);
    ONE(exp);
    ONE(exp2);
    ONE(expm1);
    ONE(floor);
    ONE(j0);
    ONE(lgamma);
    ONE(log);
    ONE(log10);
    ONE(log1p);
    ONE(log2);
    ONE(logb);
    ONE(nearbyint);
    ONE(rint);
    ONE(round);
    ONE(sin);
    ONE(sinh);
    ONE(sqrt);
    ONE(tan);
    ONE(tanh);
    ONE(tgamma);
    ONE(trunc);
    ONE(y1);
    TWO(atan2);
    TWO(copysign);
    TWO(fdim);
    TWO(fmax);
    TWO(fmin);
    TWO(fmod);
    TWO(hypot);
    TWO(nextafter);
    TWO(pow);
    TWO(remainder);
}

static int exponent;
static double whole, cosine;

static double sine(double x)
{
    double result;
    sincos(x, &result, &cosine);
    return result;
}

static void others(void)
{
    OTHER("frexp", frexp(x, &exponent), add_double);
    OTHER("ilogb", ilogb(x), add_long);
    OTHER("ldexp", ldexp(x, i % 400 - 200), add_double);
    OTHER("lrint", lrint(x), add_long);
    OTHER("lround", lround(x), add_long);
    OTHER("modf", modf(x, &whole), add_double);
    OTHER("remquo", remquo(x, y, &exponent), add_double);
    OTHER("scalbn", scalbn(x, 200 - i % 400), add_double);
    OTHER("sincos", sine(x) + cosine, add_double);
    OTHER("fma", fma(x, y, x), add_double);
    OTHER("jn", jn(i % 9, x), add_double);
    OTHER("yn", yn(i % 9, x), add_double);
    OTHER("cexp", cexp(CMPLX(x, y)), add_complex);
    OTHER("clog", clog(CMPLX(x, y)), add_complex);
    OTHER("csqrt", csqrt(CMPLX(x, y)), add_complex);
    OTHER("ctanh", ctanh(CMPLX(x, y)), add_complex);
    OTHER("cpowf", cpowf(CMPLXF(x, y), CMPLXF(y, x)), add_floats);
}

static void modes(void)
{
    static const int all[] = {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST};
    for (int i = 0; i < 4; i++) {
        fesetround(all[i]);
        OTHER("exp", exp(x), add_double);
        OTHER("sin", sin(x), add_double);
        OTHER("sqrtl", sqrtl(x), add_long_double);
        OTHER("rint", rint(x), add_double);
        printf("mode %d: %d\n", i, fegetround() == all[i]);
    }
}

static void nans(void)
{
    static const char *const payloads[] = {"", "1", "0x1234", "0777", "0xffffffffffffffff", "no", "12 ", "_1"};
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        begin();
        add_double(nan(payloads[i]));
        add_float(nanf(payloads[i]));
        add_long_double(nanl(payloads[i]));
        _Float128 longest = nanf128(payloads[i]);
        add(&longest, sizeof longest);
        end(payloads[i]);
    }
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_numbers();
    real();
    others();
    modes();
    nans();
    /* Some that a reader can check. */
    printf("%.17g %.17g %.17g\n", sin(1e22), exp(1.0), pow(1.1, 100));
    return 0;
}
