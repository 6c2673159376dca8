// An object with every kind of relocation that compilers and linkers make.

extern int provided_data[4];
extern __thread int provided_tls;
extern int twice(int), chosen(void), overridden(void), guarded(void), calls_hidden(void);
extern int nowhere(void) __attribute__((weak));
extern int nowhere_data __attribute__((weak));
extern __thread int nowhere_tls __attribute__((weak));

// GLOB_DAT, 64 with an addend, RELATIVE; many of these, so that RELR uses bitmaps.
int *far_data = &provided_data[3];
int (*function)(int) = twice;
int (*resolved)(void) = chosen;
int (*missing)(void) = nowhere;
static int own[200];
#define FOUR(i) &own[i], &own[i + 1], &own[i + 2], &own[i + 3]
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
int *near_data[] = {SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), 0, FOUR(100)};
const void *const constant[] = {&own[7], near_data, &far_data};

// Thread-local: of another object, of this one, and at a fixed place.
__thread int visible_tls = 7;
static __thread int local_tls[3] = {8, 9, 10};
#ifndef ZERO
#define ZERO 50
#endif
static __thread char local_zero[ZERO];
#ifdef INITIAL_EXEC
__attribute__((tls_model("initial-exec")))
#endif
__thread int fixed_tls = 11;

// IRELATIVE: the function is chosen here and called from here only.
static int one(void) { return own[0] + 1; }
static int (*choose_one(void))(void) { return one; }
__attribute__((visibility("hidden"), ifunc("choose_one"))) int chosen_here(void);
// An IFUNC that other objects see.
static int (*choose_visible(void))(void) { return one; }
int visible_chosen(void) __attribute__((ifunc("choose_visible")));

int overridden(void) { return 2; }
__attribute__((visibility("protected"))) int guarded_here(void) { return 12; }
int (*guarded_pointer)(void) = guarded_here;

// Only assembly makes SIZE64.
__asm__(".pushsection .data\n.globl sizes\nsizes: .quad provided_data@SIZE\n.popsection");

__attribute__((constructor)) static void begin(void) { own[1] = 1; }
__attribute__((destructor)) static void end(void) { own[2] = 2; }

int work(int x) {
    local_zero[x & 15] = 1;
    return twice(x) + chosen() + overridden() + guarded() + calls_hidden() + chosen_here() + visible_chosen()
        + provided_tls + visible_tls + local_tls[x & 1] + local_zero[x & 7] + fixed_tls + *far_data
        + (nowhere ? nowhere() : 0) + (&nowhere_data ? nowhere_data : 0) + (constant[x & 1] == near_data);
}

// Other objects may access a variable by other models.
int next_tls(void) { return ++provided_tls + 100 * ++visible_tls + 10000 * ++local_tls[0] + 1000000 * ++fixed_tls + ++local_zero[ZERO - 1]; }

// Only descriptors support a thread-local variable without a definition.
int finds_tls(void) { return &nowhere_tls ? nowhere_tls : 0; }
