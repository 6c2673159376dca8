/* shm_open, mmap, shm_unlink; anonymous shared memory. */
#include "posix.h"

#define NAME "/zooid-memory"
#define SIZE 20000

static void *map(int memory, size_t size)
{
    void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CHECK(place != MAP_FAILED);
    return place;
}

/* A new region with the name. */
static volatile char *new_memory(size_t size)
{
    int memory = open_memory(NAME, O_CREAT | O_EXCL, size);
    CHECK(memory >= 0);
    return map(memory, size);
}

/* "MAP_SHARED: write references shall change the underlying object", for a child as for its
   parent. */
static void shm_anonymous_is_shared_with_children(void)
{
    volatile int *words = shared(SIZE);
    words[0] = 1;
    pid_t child = start();
    if (child == 0) {
        CHECK(words[0] == 1);
        words[0] = 2;
        words[SIZE / sizeof *words - 1] = 3;
        _exit(0);
    }
    ends_well(child);
    CHECK(words[0] == 2 && words[SIZE / sizeof *words - 1] == 3);
    child = start();
    if (child == 0) {
        /* And with those that are born later, and their children. */
        CHECK(words[0] == 2);
        pid_t grandchild = start();
        if (grandchild == 0) {
            words[1] = 4;
            _exit(0);
        }
        ends_well(grandchild);
        CHECK(words[1] == 4);
        _exit(0);
    }
    ends_well(child);
    CHECK(words[1] == 4);
}

/* "The child process is a copy": nothing but what is shared, is. */
static void shm_other_memory_is_not_shared(void)
{
    static volatile int plain = 1;
    volatile int local = 1;
    pid_t child = start();
    if (child == 0) {
        plain = local = 2;
        _exit(0);
    }
    ends_well(child);
    CHECK(plain == 1 && local == 1);
}

/* "The newly allocated bytes shall be zero" (ftruncate). */
static void shm_is_zeroed(void)
{
    volatile char *octets = new_memory(SIZE);
    for (int at = 0; at < SIZE; at++)
        CHECK(octets[at] == 0);
    memset((char *)octets, 0xff, SIZE);
    CHECK(shm_unlink(NAME) == 0);
    octets = new_memory(SIZE);
    for (int at = 0; at < SIZE; at++)
        CHECK(octets[at] == 0);
    CHECK(shm_unlink(NAME) == 0);
}

/* Processes that open a name share it, though it was opened after the fork. */
static void shm_name_leads_to_the_same_memory(void)
{
    volatile char *octets = new_memory(SIZE);
    octets[SIZE - 1] = 7;
    pid_t child = start();
    if (child == 0) {
        int memory = open_memory(NAME, 0, 0);
        CHECK(memory >= 0);
        volatile char *again = map(memory, SIZE);
        CHECK(again[SIZE - 1] == 7);
        again[0] = 8;
        CHECK(octets[0] == 8);
        _exit(0);
    }
    ends_well(child);
    CHECK(octets[0] == 8);
    CHECK(shm_unlink(NAME) == 0);
}

/* "The object is persistent until it is unlinked", whoever made it. */
static void shm_name_outlives_its_maker(void)
{
    pid_t child = start();
    if (child == 0) {
        new_memory(SIZE)[100] = 5;
        _exit(0);
    }
    ends_well(child);
    int memory = open_memory(NAME, 0, 0);
    CHECK(memory >= 0);
    CHECK(((volatile char *)map(memory, SIZE))[100] == 5);
    CHECK(shm_unlink(NAME) == 0);
}

/* "EEXIST: O_CREAT and O_EXCL are set and the named shared memory object already exists." */
static void shm_open_O_EXCL_of_what_exists_is_EEXIST(void)
{
    new_memory(SIZE);
    CHECK_ERRNO(open_memory(NAME, O_CREAT | O_EXCL, SIZE), EEXIST);
    CHECK(open_memory(NAME, O_CREAT, SIZE) >= 0);
    CHECK(shm_unlink(NAME) == 0);
}

/* "ENOENT: O_CREAT is not set and the named shared memory object does not exist." */
static void shm_open_of_what_is_not_there_is_ENOENT(void)
{
    CHECK_ERRNO(open_memory(NAME, 0, 0), ENOENT);
    CHECK_ERRNO(shm_unlink(NAME), ENOENT);
}

/* "If references exist when the object is unlinked, the name shall be removed; removal of the
   contents is postponed." */
static void shm_unlink_leaves_it_to_those_who_have_it_mapped(void)
{
    volatile char *old = new_memory(SIZE);
    old[0] = 1;
    CHECK(shm_unlink(NAME) == 0);
    CHECK_ERRNO(open_memory(NAME, 0, 0), ENOENT);
    volatile char *new = new_memory(SIZE);
    CHECK(new[0] == 0);
    new[0] = 2;
    pid_t child = start();
    if (child == 0) {
        CHECK(old[0] == 1 && new[0] == 2);
        old[0] = 3;
        _exit(0);
    }
    ends_well(child);
    CHECK(old[0] == 3 && new[0] == 2);
    CHECK(shm_unlink(NAME) == 0);
}

/* st_size is what it was made with, for who opens it later, too. */
static void shm_has_the_size_it_was_made_with(void)
{
    static const size_t sizes[] = {1, 4095, 4096, 4097, 1 << 20};
    for (size_t at = 0; at < sizeof sizes / sizeof *sizes; at++) {
        struct stat found;
        volatile char *octets = new_memory(sizes[at]);
        octets[sizes[at] - 1] = 1;
        pid_t child = start();
        if (child == 0) {
            int memory = open_memory(NAME, O_CREAT, 1);
            CHECK(memory >= 0 && fstat(memory, &found) == 0 && (size_t)found.st_size == sizes[at]);
            CHECK(((volatile char *)map(memory, sizes[at]))[sizes[at] - 1] == 1);
            _exit(0);
        }
        ends_well(child);
        CHECK(shm_unlink(NAME) == 0);
    }
}

/* A mapping of a process stays when another process that has the object ends. */
static void shm_outlives_those_who_had_it(void)
{
    volatile char *octets = shared(SIZE);
    int alive[2];
    char octet;
    CHECK(pipe(alive) == 0);
    pid_t child = start();
    if (child == 0) {
        pid_t parent = getpid();
        if (start() == 0) {
            while (getppid() == parent && kill(parent, 0) == 0)
                pause_ms(5);
            octets[5] = 6;
            CHECK(write(alive[1], "x", 1) == 1);
        }
        _exit(0);
    }
    ends_well(child);
    read_all(alive[0], &octet, 1);
    CHECK(octets[5] == 6);
}

const struct test memory[] = {
    CASE(shm_anonymous_is_shared_with_children),
    CASE(shm_other_memory_is_not_shared),
    CASE(shm_is_zeroed),
    CASE(shm_name_leads_to_the_same_memory),
    CASE(shm_name_outlives_its_maker),
    CASE(shm_open_O_EXCL_of_what_exists_is_EEXIST),
    CASE(shm_open_of_what_is_not_there_is_ENOENT),
    CASE(shm_unlink_leaves_it_to_those_who_have_it_mapped),
    CASE(shm_has_the_size_it_was_made_with),
    CASE(shm_outlives_those_who_had_it),
    END,
};
