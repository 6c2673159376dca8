/*
 * Opens the objects of each variant by the C ABI and prints what it finds in them: a guest and Linux must say the same. No address is printed, and nothing
 * whose order C leaves open.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the program: calls a function in a new thread, and waits for its end. */
void in_thread(void (*act)(void));

static const char *variant;

static void *opened(const char *name, int flags)
{
    char file[64];
    snprintf(file, sizeof file, "lib%s_%s.so", name, variant);
    void *handle = dlopen(file, flags);
    if (!handle) {
        printf("%s: %s\n", file, dlerror());
        exit(1);
    }
    return handle;
}

static void *found(void *handle, const char *name)
{
    void *symbol = dlsym(handle, name);
    if (!symbol) {
        printf("%s: %s\n", name, dlerror());
        exit(1);
    }
    return symbol;
}

static int call(void *handle, const char *name)
{
    return ((int (*)(void))found(handle, name))();
}

static void closed(void *handle)
{
    if (dlclose(handle))
        printf("dlclose: %s\n", dlerror());
}

/* The notes of constructors and destructors since the last call (trace.c, traced.c). */
static int (*traced)(int);
static int seen;

static void happened(const char *what)
{
    printf("  %s:", what);
    for (int number; (number = traced(seen)) != 0; seen++)
        printf(" %d", number);
    putchar('\n');
}

static int (*next_tls)(void);
static void *features;

static void thread_local_variables(void)
{
    printf("  thread-local: %d", next_tls());
    printf(" %d", next_tls());
    printf(", by name %d\n", *(int *)found(features, "visible_tls"));
}

static void relocations(void)
{
    features = opened("features", RTLD_LAZY);
    int *provided_data = found(features, "provided_data");
    int **near_data = found(features, "near_data"), *own = near_data[0];
    int **far_data = found(features, "far_data");
    const void *const *constant = found(features, "constant");
    int (**function)(int) = found(features, "function");
    int (**resolved)(void) = found(features, "resolved"), (**guarded_pointer)(void) = found(features, "guarded_pointer");
    printf("  far: %d %d\n", *far_data == provided_data + 3, **far_data);
    printf("  functions: %d %d %d %d\n", (*function)(21), (*resolved)(), (*guarded_pointer)(), *(void **)found(features, "missing") == NULL);
    printf("  same: %d %d\n", (void *)*function == found(features, "twice"), (void *)*resolved == found(features, "chosen"));
    printf("  near:");
    for (int place = 0; place < 69; place += place < 60 ? 15 : 1)
        printf(" %d", near_data[place] ? (int)(near_data[place] - own) : -1);
    printf("\n  constant: %d %d %d\n", (int)((const int *)constant[0] - own), constant[1] == near_data, constant[2] == far_data);
    printf("  size: %ld\n", *(long *)found(features, "sizes"));
    printf("  constructor: %d %d\n", own[1], own[2]);
    printf("  chosen: %d\n", call(features, "visible_chosen"));
    int (*work)(int) = (int (*)(int))found(features, "work");
    printf("  work: %d %d %d %d\n", work(0), work(1), work(2), work(3));
    next_tls = (int (*)(void))found(features, "next_tls");
    thread_local_variables();
    in_thread(thread_local_variables);
    in_thread(thread_local_variables);
    thread_local_variables();
    if (strstr(variant, "descriptors"))
        printf("  nobody's: %d\n", call(features, "finds_tls"));
    void *provider = opened("provider", RTLD_LAZY);
    printf("  provider: %d %d", found(provider, "provided_data") == provided_data, *(int *)found(provider, "provided_tls"));
    printf(" %d", dlsym(provider, "work") == NULL);
    printf(" %d", dlerror() != NULL);
    printf(" %d\n", dlerror() == NULL);
    closed(features);
    printf("  still there: %d\n", provided_data[2]);
    closed(provider);
}

static void versions(void)
{
    static const char *const names[] = {"user_newest", "user_oldest", "user_unversioned", "user_interposed", "user_guarded", "user_summed"};
    void *user = opened("user", RTLD_LAZY);
    /* The second time without the loader. */
    for (int round = 0; round < 2; round++)
        for (unsigned each = 0; each < sizeof names / sizeof *names; each++)
            printf("  %s: %d\n", names[each], call(user, names[each]));
    printf("  by name: %d\n", ((int (*)(int))found(user, "twice"))(1));
    closed(user);
}

/* The graph in `setup`: each object after what it needs, and two cycles. */
static void graph(void)
{
    void *root = opened("node1", RTLD_NOW);
    happened("graph");
    void *inner = opened("node6", RTLD_NOW);
    closed(root);
    happened("root closed");
    closed(inner);
    happened("inner closed");
    inner = opened("node4", RTLD_NOW);
    happened("inner first");
    root = opened("node1", RTLD_NOW);
    happened("the others");
    closed(inner);
    happened("inner closed, and needed");
    closed(root);
    happened("graph closed");
}

static void scopes(void)
{
    void *seeker = opened("seeker", RTLD_NOW);
    printf("  alone: %d\n", call(seeker, "seek"));
    closed(seeker);
    void *first = opened("first", RTLD_NOW | RTLD_LOCAL);
    seeker = opened("seeker", RTLD_NOW);
    printf("  local: %d %d\n", call(seeker, "seek"), dlsym(RTLD_DEFAULT, "sought") == NULL);
    closed(seeker);
    happened("so far");
    void *second = opened("second", RTLD_NOW | RTLD_GLOBAL), *again = opened("first", RTLD_NOW | RTLD_GLOBAL);
    seeker = opened("seeker", RTLD_NOW);
    printf("  global: %d %d %d\n", call(seeker, "seek"), again == first, call(seeker, "seek_by_name"));
    closed(again);
    closed(first);
    happened("first closed");
    closed(second);
    happened("second closed, and in use");
    printf("  global: %d\n", call(seeker, "seek"));
    /* Where cycles are cut depends on whether anything is in use that nobody needs. */
    graph();
    closed(seeker);
    happened("nobody's");
}

static void counts(void)
{
    void *one = opened("seeker", RTLD_LAZY), *two = opened("seeker", RTLD_NOW);
    printf("  counts: %d %d", one == two, call(one, "next"));
    closed(one);
    printf(" %d", call(two, "next"));
    closed(two);
    one = opened("seeker", RTLD_LAZY);
    printf(" %d\n", call(one, "next"));
    closed(one);
    happened("opened and closed");
    one = opened("stays", RTLD_LAZY);
    printf("  stays: %d", call(one, "next"));
    closed(one);
    one = opened("stays", RTLD_LAZY);
    printf(" %d\n", call(one, "next"));
    closed(one);
}

static void ends(void)
{
    void *object = opened("ends", RTLD_NOW);
    happened("begins");
    closed(object);
    happened("ends");
}

/* Constructors and destructors that open and close others. */
static void nested(void)
{
    static const char *const names[] = {"holder", "passer"};
    for (unsigned each = 0; each < 2; each++) {
        void *object = opened(names[each], RTLD_NOW);
        happened(names[each]);
        closed(object);
        happened("closed");
        /* Nothing of it is left open. */
        object = opened(names[each], RTLD_NOW);
        closed(object);
        happened("again");
    }
    void *seeker = opened("seeker", RTLD_NOW), *holder = opened("holder", RTLD_NOW);
    closed(holder);
    happened("held by another, too");
    closed(seeker);
    happened("closed");
}

/* A thread's values end with it, and no later thread finds them. */
static pthread_key_t key;
static int ended;

static void end_value(void *value)
{
    ended += value == &key;
}

static void use_key(void)
{
    printf(" %d", pthread_getspecific(key) == NULL);
    pthread_setspecific(key, &key);
}

static void keys(void)
{
    pthread_key_create(&key, end_value);
    ended = 0;
    printf("  keys:");
    for (int round = 0; round < 4; round++)
        in_thread(use_key);
    printf(", %d ended\n", ended);
    pthread_key_delete(key);
}

/* Flags and handles of `dlopen` besides the usual ones. */
static void flags(void)
{
    char file[64];
    snprintf(file, sizeof file, "libhandles_%s.so", variant);
    printf("  not loaded: %d", dlopen(file, RTLD_NOLOAD | RTLD_NOW) == NULL);
    printf(" %d\n", dlerror() == NULL);
    printf("  no mode: %d", dlopen(file, RTLD_GLOBAL) == NULL);
    printf(" %d\n", dlerror() != NULL);
    void *handles = opened("handles", RTLD_NOW), *again = dlopen(file, RTLD_NOLOAD | RTLD_LAZY);
    printf("  loaded: %d\n", handles == again);
    printf("  counts: %d", call(handles, "next_unique"));
    closed(again);
    printf(" %d\n", call(handles, "next_unique"));
    printf("  next: %d", call(handles, "next_sought"));
    printf(" %d", call(handles, "next_nothing"));
    /* An object that was linked without libc does not have it behind itself. */
    printf(" %d\n", strcmp(variant, "lld_relr") == 0 || call(handles, "next_runtime"));

    void *program = dlopen(NULL, RTLD_NOW);
    printf("  program: %d %d", dlsym(program, "in_thread") == (void *)in_thread, dlsym(program, "strlen") != NULL);
    printf(" %d", dlsym(program, "next_sought") == NULL);
    printf(" %d\n", dlclose(program));

    void *second = opened("second", RTLD_NOW | RTLD_GLOBAL), *deep = opened("deep", RTLD_NOW | RTLD_DEEPBIND);
    printf("  deep: %d\n", call(deep, "seek"));
    closed(deep);
    deep = opened("deep", RTLD_NOW);
    printf("  not deep: %d\n", call(deep, "seek"));
    closed(deep);
    closed(second);

    deep = opened("deep", RTLD_NOW | RTLD_NODELETE);
    printf("  stays: %d", call(deep, "next"));
    closed(deep);
    deep = opened("deep", RTLD_NOW);
    printf(" %d\n", call(deep, "next"));
    closed(deep);

    void *provider = opened("provider", RTLD_NOW);
    int (*old)(int) = (int (*)(int))dlvsym(provider, "twice", "VERS_1"), (*new)(int) = (int (*)(int))dlvsym(provider, "twice", "VERS_2");
    printf("  versions: %d %d %d\n", old(1), new(1), dlvsym(provider, "twice", "VERS_3") == NULL);
    closed(provider);

    /* A unique symbol is one, whatever the scopes; its object stays. */
    void *unique = opened("unique", RTLD_NOW);
    printf("  unique: %d %d", call(unique, "next_unique"), call(handles, "next_unique"));
    closed(unique);
    closed(handles);
    handles = opened("handles", RTLD_NOW);
    printf(" %d\n", call(handles, "next_unique"));
    closed(handles);
}

/* The object of an address, in all ways to ask for it. */
struct seen {
    char *address;
    int objects, changes;
};

static int see(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct seen *seen = argument;
    seen->changes = size >= sizeof *info && info->dlpi_adds > info->dlpi_subs;
    for (int number = 0; number < info->dlpi_phnum; number++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[number];
        char *start = (char *)info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && start <= seen->address && seen->address < start + header->p_memsz) {
            const char *name = strrchr(info->dlpi_name, '/');
            printf("  header of %s\n", name ? name + 1 : info->dlpi_name);
            seen->objects++;
            return 17;
        }
    }
    return 0;
}

static void addresses(void)
{
    void *handles = opened("handles", RTLD_NOW);
    char *address = found(handles, "next_sought");
    Dl_info info;
    int result = dladdr(address + 1, &info);
    const char *name = strrchr(info.dli_fname, '/');
    printf("  address: %d %s %s %d\n", result != 0, name ? name + 1 : info.dli_fname, info.dli_sname, info.dli_saddr == address);
    printf("  nobody's: %d\n", dladdr(&info, &info));
    struct seen seen = {address, 0, 0};
    printf("  iterate: %d", dl_iterate_phdr(see, &seen));
    printf(" %d %d\n", seen.objects, seen.changes);
    seen.address = (char *)&seen;
    printf("  iterate: %d\n", dl_iterate_phdr(see, &seen));
    struct dl_find_object object;
    printf("  find: %d", _dl_find_object(address, &object));
    printf(" %d %d", (char *)object.dlfo_map_start <= address && address < (char *)object.dlfo_map_end, object.dlfo_eh_frame != NULL);
    printf(" %d\n", _dl_find_object(&object, &object));
    closed(handles);
}

/* The object that rustc has made, and what it needs of C. */
static void rust(void)
{
    void *object = opened("object", RTLD_LAZY);
    happened("begins");
    ((void (*)(size_t))found(object, "rust_main"))(2);
    printf("  call: %d\n", ((int (*)(int))found(object, "rust_callback"))(3));
    closed(object);
    happened("ends");
    void *first = opened("first", RTLD_NOW | RTLD_GLOBAL);
    object = opened("object", RTLD_NOW);
    ((void (*)(size_t))found(object, "rust_main"))(1);
    closed(first);
    happened("first closed, and in use");
    closed(object);
    happened("closed");
}

int main(void)
{
    static const char *const variants[] = {VARIANTS};
    for (unsigned each = 0; each < sizeof variants / sizeof *variants; each++) {
        variant = variants[each];
        printf("%s\n", variant);
        void *trace = opened("trace", RTLD_NOW);
        traced = (int (*)(int))found(trace, "traced");
        seen = 0;
        if (strncmp(variant, "rust", 4) == 0) {
            rust();
        } else {
            relocations();
            versions();
            scopes();
            counts();
            ends();
            nested();
            graph();
            keys();
            addresses();
            flags();
        }
        closed(trace);
    }
    char none[] = "libnone.so";
    printf("absent: %d\n", !dlopen(none, RTLD_NOW) && dlerror());
    return 0;
}
