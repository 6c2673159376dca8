/* poll, of pipes and message queues; in a pVM of semaphores, too. */
#include "posix.h"

#define NAME "/zooid-poll"

static char buffer[PIPE_BUF];

static short ready(int descriptor, short events, int ms)
{
    struct pollfd one = {descriptor, events, -1};
    int count = poll(&one, 1, ms);
    CHECK(count == (one.revents != 0));
    return one.revents;
}

static void fill_pipe(int to)
{
    set_nonblocking(to);
    while (write(to, buffer, sizeof buffer) > 0)
        ;
    CHECK(errno == EAGAIN);
}

static mqd_t new_queue(void)
{
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 64};
    mqd_t queue = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    CHECK(queue >= 0 && mq_unlink(NAME) == 0);
    return queue;
}

/* "POLLIN: data other than high-priority data may be read without blocking." Looking takes nothing away. */
static void poll_POLLIN_when_there_is_something_to_read(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(ready(ends[0], POLLIN, 0) == 0);
    CHECK(write(ends[1], "xy", 2) == 2);
    CHECK(ready(ends[0], POLLIN, 0) == POLLIN && ready(ends[0], POLLIN, -1) == POLLIN);
    CHECK(read(ends[0], buffer, 1) == 1);
    CHECK(ready(ends[0], POLLIN, 0) == POLLIN);
    CHECK(read(ends[0], buffer, 1) == 1);
    CHECK(ready(ends[0], POLLIN, 0) == 0);
}

/* "POLLOUT: normal data may be written without blocking." */
static void poll_POLLOUT_when_there_is_room(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(ready(ends[1], POLLOUT, 0) == POLLOUT);
    fill_pipe(ends[1]);
    CHECK(ready(ends[1], POLLOUT, 0) == 0);
    read_all(ends[0], buffer, PIPE_BUF);
    CHECK(ready(ends[1], POLLOUT, 0) == POLLOUT);
    CHECK(write(ends[1], buffer, PIPE_BUF) == PIPE_BUF);
}

/* "POLLHUP: a pipe that was last opened for writing by some process is now open by none": set whatever is asked for, with POLLIN while there is data. */
static void poll_POLLHUP_when_the_last_writer_is_gone(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "x", 1) == 1 && close(ends[1]) == 0);
    CHECK(ready(ends[0], POLLIN, -1) == (POLLIN | POLLHUP));
    CHECK(read(ends[0], buffer, 1) == 1);
    CHECK(ready(ends[0], POLLIN, -1) == POLLHUP && ready(ends[0], 0, -1) == POLLHUP);
}

/* "POLLERR: an error has occurred on the device or stream": nobody reads any more. */
static void poll_POLLERR_when_the_last_reader_is_gone(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0);
    CHECK(ready(ends[1], POLLOUT, -1) & POLLERR);
    CHECK(ready(ends[1], 0, -1) == POLLERR);
}

/* "POLLNVAL: the specified fd value is invalid": set whatever is asked for, and counted. */
static void poll_POLLNVAL_when_there_is_no_such_descriptor(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0);
    CHECK(ready(ends[0], POLLIN, -1) == POLLNVAL && ready(ends[0], 0, 0) == POLLNVAL);
    CHECK(ready(200, POLLIN, -1) == POLLNVAL);
}

/* "If the value of fd is less than 0, events shall be ignored, and revents shall be set to 0." */
static void poll_negative_descriptors_are_passed_over(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
    CHECK(ready(-1, POLLIN, 0) == 0);
    struct pollfd all[3] = {{-1, POLLIN, -1}, {ends[0], POLLIN, -1}, {-5, POLLOUT, -1}};
    CHECK(poll(all, 3, -1) == 1);
    CHECK(all[0].revents == 0 && all[1].revents == POLLIN && all[2].revents == 0);
}

/* "If timeout is 0, poll() shall return immediately"; else it waits at least so many milliseconds. */
static void poll_waits_for_its_time(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct timespec limit = in_ms(20), now;
    CHECK(ready(ends[0], POLLIN, 0) == 0);
    CHECK(ready(ends[0], POLLIN, 25) == 0);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    CHECK(now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec));
    CHECK(poll(NULL, 0, 0) == 0 && poll(NULL, 0, 5) == 0);
}

/* "If timeout is -1, poll() shall block until a requested event occurs." */
static void poll_is_woken_by_what_others_write(void)
{
    static const int limits[] = {-1, 60000};
    for (int at = 0; at < 2; at++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        pid_t child = start();
        if (child == 0) {
            pause_ms(20);
            CHECK(write(ends[1], "x", 1) == 1);
            _exit(0);
        }
        CHECK(ready(ends[0], POLLIN, limits[at]) == POLLIN);
        ends_well(child);
    }
}

/* The same by one who reads, and by ends that are closed. */
static void poll_is_woken_by_readers_and_by_ends(void)
{
    int ends[2], other[2];
    CHECK(pipe(ends) == 0 && pipe(other) == 0);
    fill_pipe(ends[1]);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        read_all(ends[0], buffer, sizeof buffer);
        CHECK(ready(other[0], POLLIN, -1) == POLLIN);
        _exit(0);
    }
    CHECK(close(ends[0]) == 0 && close(other[0]) == 0);
    CHECK(ready(ends[1], POLLOUT, -1) == POLLOUT);
    fill_pipe(ends[1]);
    CHECK(write(other[1], "x", 1) == 1);
    CHECK(ready(ends[1], 0, -1) == POLLERR);
    ends_well(child);
    CHECK(pipe(ends) == 0);
    child = start();
    if (child == 0) {
        CHECK(close(ends[0]) == 0);
        pause_ms(20);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    CHECK(ready(ends[0], POLLIN, -1) == POLLHUP);
    ends_well(child);
}

/* "poll() shall return the number of descriptors that have been selected"; the others have revents 0. */
static void poll_tells_which_of_many_are_ready(void)
{
    enum { PIPES = 8 };
    int ends[PIPES][2];
    struct pollfd all[2 * PIPES];
    for (int at = 0; at < PIPES; at++) {
        CHECK(pipe(ends[at]) == 0);
        all[2 * at] = (struct pollfd){ends[at][0], POLLIN, -1};
        all[2 * at + 1] = (struct pollfd){ends[at][1], 0, -1};
    }
    CHECK(poll(all, 2 * PIPES, 0) == 0);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(write(ends[5][1], "x", 1) == 1);
        _exit(0);
    }
    CHECK(poll(all, 2 * PIPES, -1) == 1);
    for (int at = 0; at < 2 * PIPES; at++)
        CHECK(all[at].revents == (at == 10 ? POLLIN : 0));
    CHECK(write(ends[0][1], "x", 1) == 1);
    all[3].events = POLLOUT;
    CHECK(poll(all, 2 * PIPES, -1) == 3);
    CHECK(all[0].revents == POLLIN && all[3].revents == POLLOUT && all[10].revents == POLLIN && all[2].revents == 0);
    ends_well(child);
}

/* Linux lets message queues be polled, as a pVM does: POLLIN when there is a message, POLLOUT when there is room. */
static void poll_of_a_message_queue(void)
{
    mqd_t queue = new_queue();
    CHECK(ready(queue, POLLIN | POLLOUT, -1) == POLLOUT);
    CHECK(mq_send(queue, "x", 1, 0) == 0);
    CHECK(ready(queue, POLLIN | POLLOUT, -1) == POLLIN);
    CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
    CHECK(ready(queue, POLLIN, 0) == 0);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(mq_send(queue, "x", 1, 0) == 0);
        CHECK(ready(queue, POLLOUT, -1) == POLLOUT);
        _exit(0);
    }
    CHECK(ready(queue, POLLIN, -1) == POLLIN);
    CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
    ends_well(child);
}

#if !__STDC_HOSTED__
/* A semaphore's descriptor is ready to read when it is above 0. */
static void poll_of_a_semaphore(void)
{
    int semaphore = pvm_sem_open(NULL, 0, 1);
    CHECK(semaphore >= 0 && ready(semaphore, POLLIN, -1) == POLLIN);
    CHECK(pvm_sem_wait(semaphore, 0) == 0 && ready(semaphore, POLLIN, 0) == 0);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(pvm_sem_post(semaphore) == 0);
        _exit(0);
    }
    CHECK(ready(semaphore, POLLIN, -1) == POLLIN);
    ends_well(child);
}
#endif

const struct test polls[] = {
    CASE(poll_POLLIN_when_there_is_something_to_read),
    CASE(poll_POLLOUT_when_there_is_room),
    CASE(poll_POLLHUP_when_the_last_writer_is_gone),
    CASE(poll_POLLERR_when_the_last_reader_is_gone),
    CASE(poll_POLLNVAL_when_there_is_no_such_descriptor),
    CASE(poll_negative_descriptors_are_passed_over),
    CASE(poll_waits_for_its_time),
    CASE(poll_is_woken_by_what_others_write),
    CASE(poll_is_woken_by_readers_and_by_ends),
    CASE(poll_tells_which_of_many_are_ready),
    CASE(poll_of_a_message_queue),
    GUEST_ONLY(poll_of_a_semaphore, "Linux' semaphores are not descriptors"),
    END,
};
