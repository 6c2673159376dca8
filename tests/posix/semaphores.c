/* Semaphores with a name: sem_open, sem_wait, sem_post, sem_unlink. */
#include "posix.h"

#define NAME "/zooid-semaphore"

/* A new semaphore, without its name. */
static sem_t *new_semaphore(unsigned value)
{
    sem_t *semaphore = sem_open(NAME, O_CREAT | O_EXCL, 0600, value);
    CHECK(semaphore != SEM_FAILED);
    CHECK(sem_unlink(NAME) == 0);
    return semaphore;
}

static int value_of(sem_t *semaphore)
{
    int value;
    CHECK(sem_getvalue(semaphore, &value) == 0);
    return value;
}

/* "The semaphore is created with an initial value of value"; sem_wait() decrements it, sem_post() increments it. */
static void sem_counts(void)
{
    sem_t *semaphore = new_semaphore(2);
    CHECK(value_of(semaphore) == 2);
    CHECK(sem_wait(semaphore) == 0 && value_of(semaphore) == 1);
    CHECK(sem_wait(semaphore) == 0 && value_of(semaphore) == 0);
    CHECK(sem_post(semaphore) == 0 && sem_post(semaphore) == 0 && sem_post(semaphore) == 0);
    CHECK(value_of(semaphore) == 3);
}

/* "sem_trywait: EAGAIN: the semaphore was already locked, so it cannot be immediately locked." */
static void sem_trywait_at_0_is_EAGAIN(void)
{
    sem_t *semaphore = new_semaphore(1);
    CHECK(sem_trywait(semaphore) == 0);
    CHECK_ERRNO(sem_trywait(semaphore), EAGAIN);
    CHECK(value_of(semaphore) == 0);
    CHECK(sem_post(semaphore) == 0 && sem_trywait(semaphore) == 0);
}

/* "ETIMEDOUT: the semaphore could not be locked before the specified timeout expired", and not before that. */
static void sem_timedwait_at_0_is_ETIMEDOUT(void)
{
    sem_t *semaphore = new_semaphore(0);
    struct timespec limit = in_ms(20), now;
    CHECK_ERRNO(sem_timedwait(semaphore, &limit), ETIMEDOUT);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    CHECK(now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec));
    CHECK(value_of(semaphore) == 0);
}

/* "Under no circumstance shall the function fail with a timeout if the semaphore can be locked immediately." */
static void sem_limit_in_the_past_does_not_matter_above_0(void)
{
    sem_t *semaphore = new_semaphore(1);
    struct timespec limit = in_ms(-1000);
    CHECK(sem_timedwait(semaphore, &limit) == 0);
    CHECK_ERRNO(sem_timedwait(semaphore, &limit), ETIMEDOUT);
}

/* "If the semaphore value is zero, the calling thread shall not return until it locks the semaphore." */
static void sem_waiter_is_woken_by_a_post(void)
{
    sem_t *semaphore = new_semaphore(0);
    struct timespec limit = in_ms(60000);
    pid_t child = start();
    if (child == 0) {
        CHECK(sem_wait(semaphore) == 0);
        CHECK(sem_timedwait(semaphore, &limit) == 0);
        _exit(0);
    }
    pause_ms(20);
    CHECK(sem_post(semaphore) == 0);
    pause_ms(20);
    CHECK(sem_post(semaphore) == 0);
    ends_well(child);
    CHECK(value_of(semaphore) == 0);
}

/* "EOVERFLOW: the maximum allowable value of the semaphore would be exceeded." */
static void sem_post_above_the_largest_value_is_EOVERFLOW(void)
{
    sem_t *semaphore = new_semaphore(SEM_VALUE_MAX);
    CHECK_ERRNO(sem_post(semaphore), EOVERFLOW);
    CHECK(value_of(semaphore) == SEM_VALUE_MAX);
    CHECK(sem_wait(semaphore) == 0 && sem_post(semaphore) == 0);
    CHECK_ERRNO(sem_post(semaphore), EOVERFLOW);
}

/* "EINVAL: O_CREAT was specified in oflag and value was greater than {SEM_VALUE_MAX}." */
static void sem_open_above_the_largest_value_is_EINVAL(void)
{
    errno = 0;
    CHECK(sem_open(NAME, O_CREAT | O_EXCL, 0600, SEM_VALUE_MAX + 1u) == SEM_FAILED && errno == EINVAL);
}

/* "EEXIST: O_CREAT and O_EXCL are set and the named semaphore already exists." Without O_EXCL it is opened, and the value is ignored. */
static void sem_open_O_EXCL_of_what_exists_is_EEXIST(void)
{
    sem_t *semaphore = sem_open(NAME, O_CREAT | O_EXCL, 0600, 1);
    CHECK(semaphore != SEM_FAILED);
    errno = 0;
    CHECK(sem_open(NAME, O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED && errno == EEXIST);
    sem_t *again = sem_open(NAME, O_CREAT, 0600, 5);
    CHECK(again != SEM_FAILED && value_of(again) == 1);
    CHECK(sem_post(semaphore) == 0 && value_of(again) == 2);
    CHECK(sem_unlink(NAME) == 0);
}

/* "ENOENT: O_CREAT is not set and the named semaphore does not exist." */
static void sem_open_of_what_is_not_there_is_ENOENT(void)
{
    errno = 0;
    CHECK(sem_open(NAME, 0) == SEM_FAILED && errno == ENOENT);
    CHECK_ERRNO(sem_unlink(NAME), ENOENT);
}

/* "If references exist, the semaphore is destroyed when they are gone; sem_open() with the name refers to a new one." */
static void sem_unlink_leaves_it_to_those_who_have_it_open(void)
{
    sem_t *old = new_semaphore(3);
    sem_t *new = sem_open(NAME, O_CREAT | O_EXCL, 0600, 0);
    CHECK(new != SEM_FAILED);
    pid_t child = start();
    if (child == 0) {
        CHECK(sem_wait(old) == 0 && sem_post(new) == 0);
        _exit(0);
    }
    ends_well(child);
    CHECK(value_of(old) == 2 && value_of(new) == 1);
    CHECK(sem_unlink(NAME) == 0);
}

/* A name leads all processes to the same semaphore, and its value stays when its maker has ended. */
static void sem_name_is_found_by_others_and_outlives_its_maker(void)
{
    pid_t child = start();
    if (child == 0) {
        sem_t *semaphore = sem_open(NAME, O_CREAT | O_EXCL, 0600, 5);
        CHECK(semaphore != SEM_FAILED && sem_wait(semaphore) == 0);
        CHECK(sem_close(semaphore) == 0);
        _exit(0);
    }
    ends_well(child);
    sem_t *semaphore = sem_open(NAME, 0);
    CHECK(semaphore != SEM_FAILED && value_of(semaphore) == 4);
    CHECK(sem_unlink(NAME) == 0);
}

/* Of those who wait, each post lets one go on. */
static void sem_each_post_lets_one_waiter_go_on(void)
{
    sem_t *semaphore = new_semaphore(0), *done = new_semaphore(0);
    pid_t children[3];
    for (int waiter = 0; waiter < 3; waiter++) {
        children[waiter] = start();
        if (children[waiter] == 0) {
            CHECK(sem_wait(semaphore) == 0 && sem_post(done) == 0);
            _exit(0);
        }
    }
    for (int waiter = 0; waiter < 3; waiter++) {
        CHECK(sem_post(semaphore) == 0);
        CHECK(sem_wait(done) == 0);
        CHECK_ERRNO(sem_trywait(done), EAGAIN);
    }
    for (int waiter = 0; waiter < 3; waiter++)
        ends_well(children[waiter]);
}

/* Nothing is lost or done twice when several processes count. */
static void sem_excludes_others(void)
{
    enum { CHILDREN = 3, ROUNDS = 300 };
    sem_t *semaphore = new_semaphore(1);
    volatile int *counter = shared(sizeof *counter);
    pid_t children[CHILDREN];
    for (int number = 0; number < CHILDREN; number++) {
        children[number] = start();
        if (children[number] == 0) {
            for (int round = 0; round < ROUNDS; round++) {
                CHECK(sem_wait(semaphore) == 0);
                int seen = *counter;
                if (round % 50 == 0)
                    pause_ms(1);
                *counter = seen + 1;
                CHECK(sem_post(semaphore) == 0);
            }
            _exit(0);
        }
    }
    for (int number = 0; number < CHILDREN; number++)
        ends_well(children[number]);
    CHECK(*counter == CHILDREN * ROUNDS && value_of(semaphore) == 1);
}

const struct test semaphores[] = {
    CASE(sem_counts),
    CASE(sem_trywait_at_0_is_EAGAIN),
    CASE(sem_timedwait_at_0_is_ETIMEDOUT),
    CASE(sem_limit_in_the_past_does_not_matter_above_0),
    CASE(sem_waiter_is_woken_by_a_post),
    CASE(sem_post_above_the_largest_value_is_EOVERFLOW),
    CASE(sem_open_above_the_largest_value_is_EINVAL),
    CASE(sem_open_O_EXCL_of_what_exists_is_EEXIST),
    CASE(sem_open_of_what_is_not_there_is_ENOENT),
    CASE(sem_unlink_leaves_it_to_those_who_have_it_open),
    CASE(sem_name_is_found_by_others_and_outlives_its_maker),
    CASE(sem_each_post_lets_one_waiter_go_on),
    CASE(sem_excludes_others),
    END,
};
