/* pipe, read, write, close. */
#include "posix.h"

#define LARGE 300000

static char buffer[LARGE];

static char pattern(size_t at)
{
    return (at ^ at >> 8) * 31;
}

static void fill_buffer(size_t size)
{
    for (size_t at = 0; at < size; at++)
        buffer[at] = pattern(at);
}

static void check_buffer(size_t size)
{
    for (size_t at = 0; at < size; at++)
        CHECK(buffer[at] == pattern(at));
}

/* Writes pieces until the pipe takes no more of them, and returns how many octets it has. */
static size_t fill_pipe(int to)
{
    ssize_t count;
    size_t all = 0;
    set_nonblocking(to);
    while ((count = write(to, buffer, PIPE_BUF)) > 0)
        all += count;
    CHECK(errno == EAGAIN);
    return all;
}

/* "Data written to [1] and read from [0] is accessed on a first-in-first-out basis." */
static void pipe_carries_octets_in_order(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    fill_buffer(5000);
    CHECK(write(ends[1], buffer, 2000) == 2000);
    CHECK(write(ends[1], buffer + 2000, 3000) == 3000);
    memset(buffer, 0, sizeof buffer);
    read_all(ends[0], buffer, 5000);
    check_buffer(5000);
}

/* "The descriptors shall be the two lowest available." */
static void pipe_takes_the_lowest_descriptors(void)
{
    int filler[2], first[2], second[2], third[2];
    CHECK(pipe(filler) == 0 && pipe(first) == 0 && pipe(second) == 0);
    CHECK(first[1] == first[0] + 1 && second[0] == first[1] + 1 && second[1] == second[0] + 1);
    CHECK(close(first[1]) == 0 && close(second[0]) == 0);
    CHECK(pipe(third) == 0 && third[0] == first[1] && third[1] == second[0]);
}

/* "The value returned may be less than nbyte if the file is a pipe and has fewer than nbyte bytes
   immediately available." */
static void pipe_read_returns_what_there_is(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "hello", 5) == 5);
    CHECK(read(ends[0], buffer, 100) == 5 && memcmp(buffer, "hello", 5) == 0);
}

/* Unread data stay in the pipe. */
static void pipe_read_of_a_part_leaves_the_rest(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "hello", 5) == 5);
    CHECK(read(ends[0], buffer, 2) == 2 && memcmp(buffer, "he", 2) == 0);
    CHECK(read(ends[0], buffer, 100) == 3 && memcmp(buffer, "llo", 3) == 0);
}

/* "If nbyte is zero, read() shall return zero and have no other results." */
static void pipe_read_of_0_octets_returns_0(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(read(ends[0], buffer, 0) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(read(ends[0], buffer, 0) == 0);
    CHECK(read(ends[0], buffer, 1) == 1);
}

/* "If some process has the pipe open for writing and O_NONBLOCK is set, read() shall return -1 and
   set errno to EAGAIN." */
static void pipe_read_of_an_empty_nonblocking_pipe_is_EAGAIN(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    set_nonblocking(ends[0]);
    CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(read(ends[0], buffer, 10) == 1);
    CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
}

/* "If O_NONBLOCK is clear, read() shall block the calling thread until some data is written." */
static void pipe_read_waits_until_something_is_written(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        pause_ms(30);
        CHECK(write(ends[1], "late", 4) == 4);
        _exit(0);
    }
    CHECK(read(ends[0], buffer, 10) == 4);
    ends_well(child);
}

/* "If no process has the pipe open for writing, read() shall return 0 to indicate end-of-file." */
static void pipe_read_returns_0_when_the_last_writer_is_gone(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "last", 4) == 4);
    CHECK(close(ends[1]) == 0);
    CHECK(read(ends[0], buffer, 10) == 4);
    CHECK(read(ends[0], buffer, 10) == 0);
    set_nonblocking(ends[0]);
    CHECK(read(ends[0], buffer, 10) == 0);
}

/* The same, while it waits: it is not the parent's own end alone that counts. */
static void pipe_read_waits_while_a_child_has_the_writing_end(void)
{
    int ends[2], go[2];
    CHECK(pipe(ends) == 0 && pipe(go) == 0);
    pid_t child = start();
    if (child == 0) {
        read_all(go[0], buffer, 1);
        CHECK(close(ends[1]) == 0);
        read_all(go[0], buffer, 1);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    set_nonblocking(ends[0]);
    CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
    CHECK(fcntl(ends[0], F_SETFL, 0) == 0);
    CHECK(write(go[1], "c", 1) == 1);
    CHECK(read(ends[0], buffer, 1) == 0);
    CHECK(write(go[1], "e", 1) == 1);
    ends_well(child);
}

/* "All open descriptors of a process are closed when it ends." */
static void pipe_ends_are_closed_by_an_exit(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0)
        _exit(0);
    CHECK(close(ends[1]) == 0);
    CHECK(read(ends[0], buffer, 1) == 0);
    ends_well(child);
}

/* "With O_NONBLOCK, a write of nbyte <= PIPE_BUF: if there is not sufficient space, transfer no
   data and return -1 with EAGAIN." */
static void pipe_write_up_to_PIPE_BUF_is_whole_or_EAGAIN(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    size_t all = fill_pipe(ends[1]);
    CHECK(all >= PIPE_BUF);
    read_all(ends[0], buffer, all);
    set_nonblocking(ends[0]);
    CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
    /* As full as before, but for less than a piece. */
    for (size_t at = 0; at < all - PIPE_BUF; at += PIPE_BUF)
        CHECK(write(ends[1], buffer, PIPE_BUF) == PIPE_BUF);
    CHECK(write(ends[1], buffer, 100) == 100);
    CHECK_ERRNO(write(ends[1], buffer, PIPE_BUF), EAGAIN);
    CHECK(write(ends[1], buffer, 100) == 100);
    size_t found = 0;
    for (ssize_t count; (count = read(ends[0], buffer, LARGE)) > 0;)
        found += count;
    CHECK(found == all - PIPE_BUF + 200);
}

/* "A write of nbyte > PIPE_BUF: when at least one byte can be written, transfer what it can and
   return the number of bytes written." */
static void pipe_write_above_PIPE_BUF_may_be_partial(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    size_t all = fill_pipe(ends[1]);
    CHECK_ERRNO(write(ends[1], buffer, LARGE), EAGAIN);
    read_all(ends[0], buffer, PIPE_BUF);
    ssize_t count = write(ends[1], buffer, LARGE);
    CHECK(count > 0 && count < LARGE);
    read_all(ends[0], buffer, all - PIPE_BUF + count);
    set_nonblocking(ends[0]);
    CHECK_ERRNO(read(ends[0], buffer, 1), EAGAIN);
}

/* "If O_NONBLOCK is clear, a write request may cause the thread to block, but on normal completion
   it shall return nbyte." */
static void pipe_write_that_does_not_fit_waits_and_is_whole(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        fill_buffer(LARGE);
        CHECK(write(ends[1], buffer, LARGE) == LARGE);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    read_all(ends[0], buffer, LARGE);
    check_buffer(LARGE);
    CHECK(read(ends[0], buffer, 1) == 0);
    ends_well(child);
}

/* "Write requests of PIPE_BUF bytes or less shall not be interleaved with data from other processes
   doing writes on the same pipe." */
static void pipe_pieces_of_PIPE_BUF_are_not_interleaved(void)
{
    enum { WRITERS = 3, PIECES = 60 };
    int ends[2], found[WRITERS] = {0};
    CHECK(pipe(ends) == 0);
    pid_t children[WRITERS];
    for (int writer = 0; writer < WRITERS; writer++) {
        children[writer] = start();
        if (children[writer] == 0) {
            memset(buffer, writer, PIPE_BUF);
            for (int piece = 0; piece < PIECES; piece++)
                CHECK(write(ends[1], buffer, PIPE_BUF) == PIPE_BUF);
            _exit(0);
        }
    }
    CHECK(close(ends[1]) == 0);
    for (int piece = 0; piece < WRITERS * PIECES; piece++) {
        read_all(ends[0], buffer, PIPE_BUF);
        CHECK(buffer[0] >= 0 && buffer[0] < WRITERS);
        found[(int)buffer[0]]++;
        for (int at = 1; at < PIPE_BUF; at++)
            CHECK(buffer[at] == buffer[0]);
    }
    CHECK(read(ends[0], buffer, 1) == 0);
    for (int writer = 0; writer < WRITERS; writer++) {
        CHECK(found[writer] == PIECES);
        ends_well(children[writer]);
    }
}

/* Data that one process reads, no other reads. */
static void pipe_octets_go_to_one_of_several_readers(void)
{
    enum { OCTETS = 2000 };
    int ends[2], answers[2];
    CHECK(pipe(ends) == 0 && pipe(answers) == 0);
    pid_t children[2];
    for (int reader = 0; reader < 2; reader++) {
        children[reader] = start();
        if (children[reader] == 0) {
            int sum[2] = {0, 0};
            CHECK(close(ends[1]) == 0);
            for (ssize_t count; (count = read(ends[0], buffer, 7)) != 0;) {
                CHECK(count > 0);
                sum[0] += count;
                for (ssize_t at = 0; at < count; at++)
                    sum[1] += (unsigned char)buffer[at];
            }
            CHECK(write(answers[1], sum, sizeof sum) == sizeof sum);
            _exit(0);
        }
    }
    int octets = 0, sum = 0, answer[2];
    for (int at = 0; at < OCTETS; at++) {
        buffer[0] = at % 251;
        sum += at % 251;
        CHECK(write(ends[1], buffer, 1) == 1);
    }
    CHECK(close(ends[1]) == 0);
    for (int reader = 0; reader < 2; reader++) {
        read_all(answers[0], answer, sizeof answer);
        octets += answer[0];
        sum -= answer[1];
        ends_well(children[reader]);
    }
    CHECK(octets == OCTETS && sum == 0);
}

/* "If no process has the pipe open for reading, write() fails with EPIPE, and SIGPIPE is sent to
   the thread": ignored here. */
static void pipe_write_without_reader_is_EPIPE(void)
{
    int ends[2];
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK(pipe(ends) == 0);
    CHECK(write(ends[1], "unread", 6) == 6);
    CHECK(close(ends[0]) == 0);
    CHECK_ERRNO(write(ends[1], "x", 1), EPIPE);
    set_nonblocking(ends[1]);
    CHECK_ERRNO(write(ends[1], "x", 1), EPIPE);
}

static sem_t *handled;
static volatile sig_atomic_t number;

static void handle(int signal)
{
    number = signal;
    sem_post(handled);
}

/* The same with a handler. */
static void pipe_write_without_reader_raises_SIGPIPE(void)
{
    int ends[2];
    handled = shared(sizeof *handled);
    CHECK(sem_init(handled, 1, 0) == 0);
    CHECK(signal(SIGPIPE, handle) != SIG_ERR);
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0);
    CHECK_ERRNO(write(ends[1], "x", 1), EPIPE);
    CHECK(sem_wait(handled) == 0 && number == SIGPIPE);
}

#if __STDC_HOSTED__
/* "The default action of SIGPIPE is to terminate the process." */
static void pipe_write_without_reader_ends_the_writer(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0);
    pid_t child = start();
    if (child == 0) {
        write(ends[1], "x", 1);
        _exit(0);
    }
    ends_by(child, SIGPIPE);
}
#endif

/* A writer that waits for room gets EPIPE when the last reader closes its end. */
static void pipe_write_that_waits_is_EPIPE_when_the_last_reader_closes(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    pid_t child = start();
    if (child == 0) {
        CHECK(close(ends[0]) == 0);
        while (write(ends[1], buffer, PIPE_BUF) == PIPE_BUF)
            ;
        CHECK(errno == EPIPE);
        _exit(0);
    }
    read_all(ends[0], buffer, 10 * PIPE_BUF);
    pause_ms(20);
    CHECK(close(ends[0]) == 0);
    ends_well(child);
}

/* "EBADF: the argument is not a valid descriptor open for reading" (for writing). */
static void pipe_ends_have_a_direction(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK_ERRNO(read(ends[1], buffer, 1), EBADF);
    CHECK_ERRNO(write(ends[0], buffer, 1), EBADF);
}

/* "EBADF: the argument is not an open descriptor." */
static void pipe_descriptor_that_is_closed_is_EBADF(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    CHECK_ERRNO(close(ends[0]), EBADF);
    CHECK_ERRNO(read(ends[0], buffer, 1), EBADF);
    CHECK_ERRNO(write(ends[1], buffer, 1), EBADF);
    CHECK_ERRNO(close(-1), EBADF);
}

/* A pipeline as a shell makes it for `one | two | three`: every process closes its unused ends, and
   the ends of file follow from that. */
static void pipe_shell_idiom(void)
{
    enum { OCTETS = 100000 };
    int first[2], second[2];
    CHECK(pipe(first) == 0);
    pid_t one = start();
    if (one == 0) {
        CHECK(close(first[0]) == 0);
        fill_buffer(OCTETS);
        CHECK(write(first[1], buffer, OCTETS) == OCTETS);
        _exit(0);
    }
    CHECK(close(first[1]) == 0 && pipe(second) == 0);
    pid_t two = start();
    if (two == 0) {
        CHECK(close(second[0]) == 0);
        for (ssize_t count; (count = read(first[0], buffer, 3000)) != 0;) {
            CHECK(count > 0);
            for (ssize_t at = 0; at < count; at++)
                buffer[at] ^= 0x55;
            CHECK(write(second[1], buffer, count) == count);
        }
        _exit(0);
    }
    CHECK(close(first[0]) == 0 && close(second[1]) == 0);
    pid_t three = start();
    if (three == 0) {
        read_all(second[0], buffer, OCTETS);
        for (size_t at = 0; at < OCTETS; at++)
            buffer[at] ^= 0x55;
        check_buffer(OCTETS);
        CHECK(read(second[0], buffer, 1) == 0);
        _exit(0);
    }
    CHECK(close(second[0]) == 0);
    ends_well(one);
    ends_well(two);
    ends_well(three);
}

/* Data stays in the pipe when its writer ends, whichever way. */
static void pipe_octets_outlive_their_writer(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(write(ends[1], "last words", 10) == 10);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    ends_well(child);
    CHECK(read(ends[0], buffer, 100) == 10 && memcmp(buffer, "last words", 10) == 0);
    CHECK(read(ends[0], buffer, 100) == 0);
}

/* A grandchild has the ends, too, and its parent need not live. */
static void pipe_ends_are_inherited_by_grandchildren(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        if (start() == 0) {
            pause_ms(20);
            CHECK(write(ends[1], "from a grandchild", 17) == 17);
        }
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    ends_well(child);
    read_all(ends[0], buffer, 17);
    CHECK(memcmp(buffer, "from a grandchild", 17) == 0);
    CHECK(read(ends[0], buffer, 1) == 0);
}

const struct test pipes[] = {
    CASE(pipe_carries_octets_in_order),
    CASE(pipe_takes_the_lowest_descriptors),
    CASE(pipe_read_returns_what_there_is),
    CASE(pipe_read_of_a_part_leaves_the_rest),
    CASE(pipe_read_of_0_octets_returns_0),
    CASE(pipe_read_of_an_empty_nonblocking_pipe_is_EAGAIN),
    CASE(pipe_read_waits_until_something_is_written),
    CASE(pipe_read_returns_0_when_the_last_writer_is_gone),
    CASE(pipe_read_waits_while_a_child_has_the_writing_end),
    CASE(pipe_ends_are_closed_by_an_exit),
    CASE(pipe_write_up_to_PIPE_BUF_is_whole_or_EAGAIN),
    CASE(pipe_write_above_PIPE_BUF_may_be_partial),
    CASE(pipe_write_that_does_not_fit_waits_and_is_whole),
    CASE(pipe_pieces_of_PIPE_BUF_are_not_interleaved),
    CASE(pipe_octets_go_to_one_of_several_readers),
    CASE(pipe_write_without_reader_is_EPIPE),
    CASE(pipe_write_without_reader_raises_SIGPIPE),
    LINUX_ONLY(pipe_write_without_reader_ends_the_writer, "a pVM's SIGPIPE does nothing by default"),
    CASE(pipe_write_that_waits_is_EPIPE_when_the_last_reader_closes),
    CASE(pipe_ends_have_a_direction),
    CASE(pipe_descriptor_that_is_closed_is_EBADF),
    CASE(pipe_shell_idiom),
    CASE(pipe_octets_outlive_their_writer),
    CASE(pipe_ends_are_inherited_by_grandchildren),
    END,
};
