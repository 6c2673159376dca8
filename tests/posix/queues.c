/* mq_open, mq_send, mq_receive, mq_unlink. */
#include "posix.h"

#define NAME "/zooid-queue"

static char buffer[256];
static unsigned priority;

/* A new queue of `messages` messages of 64 octets, without a name. */
static mqd_t new_queue(int messages, int flags)
{
    struct mq_attr attributes = {.mq_maxmsg = messages, .mq_msgsize = 64};
    mqd_t queue = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &attributes);
    CHECK(queue >= 0);
    CHECK(mq_unlink(NAME) == 0);
    return queue;
}

static void check_next(mqd_t queue, const char *text, unsigned expected)
{
    CHECK(mq_receive(queue, buffer, sizeof buffer, &priority) == (ssize_t)strlen(text));
    CHECK(memcmp(buffer, text, strlen(text)) == 0 && priority == expected);
}

/* "mq_receive() shall receive the oldest of the highest priority message(s)." */
static void mq_highest_priority_is_received_first(void)
{
    mqd_t queue = new_queue(5, 0);
    CHECK(mq_send(queue, "low", 3, 1) == 0 && mq_send(queue, "highest", 7, MQ_PRIO_MAX - 1) == 0);
    CHECK(mq_send(queue, "none", 4, 0) == 0 && mq_send(queue, "high", 4, 200) == 0);
    check_next(queue, "highest", MQ_PRIO_MAX - 1);
    check_next(queue, "high", 200);
    check_next(queue, "low", 1);
    check_next(queue, "none", 0);
}

/* "A message with the same priority is inserted after the others." */
static void mq_messages_of_one_priority_are_received_in_order(void)
{
    mqd_t queue = new_queue(4, 0);
    for (int round = 0; round < 5; round++) {
        CHECK(mq_send(queue, "a", 1, 7) == 0 && mq_send(queue, "b", 1, 7) == 0);
        CHECK(mq_send(queue, "0", 1, 9) == 0 && mq_send(queue, "c", 1, 7) == 0);
        check_next(queue, "0", 9);
        check_next(queue, "a", 7);
        CHECK(mq_send(queue, "d", 1, 7) == 0);
        check_next(queue, "b", 7);
        check_next(queue, "c", 7);
        check_next(queue, "d", 7);
    }
}

/* Messages are received as they were sent, never joined or split. */
static void mq_messages_keep_their_boundaries(void)
{
    mqd_t queue = new_queue(5, 0);
    memset(buffer, 'x', 64);
    CHECK(mq_send(queue, buffer, 64, 0) == 0 && mq_send(queue, "one", 3, 0) == 0 && mq_send(queue, "two!", 4, 0) == 0);
    CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 64 && buffer[63] == 'x');
    check_next(queue, "one", 0);
    check_next(queue, "two!", 0);
}

/* "mq_send: msg_len less than or equal to mq_msgsize": so it may be 0. */
static void mq_message_may_have_no_octets(void)
{
    mqd_t queue = new_queue(5, 0);
    CHECK(mq_send(queue, "", 0, 3) == 0);
    check_next(queue, "", 3);
}

/* "EMSGSIZE: the specified message length exceeds the message size attribute." */
static void mq_send_of_too_long_a_message_is_EMSGSIZE(void)
{
    mqd_t queue = new_queue(5, 0);
    CHECK_ERRNO(mq_send(queue, buffer, 65, 0), EMSGSIZE);
    CHECK(mq_send(queue, buffer, 64, 0) == 0);
}

/* "EMSGSIZE: the specified message buffer size is less than the message size attribute", however short the message. */
static void mq_receive_into_too_short_a_buffer_is_EMSGSIZE(void)
{
    mqd_t queue = new_queue(5, 0);
    CHECK(mq_send(queue, "short", 5, 0) == 0);
    CHECK_ERRNO(mq_receive(queue, buffer, 63, NULL), EMSGSIZE);
    CHECK(mq_receive(queue, buffer, 64, NULL) == 5);
}

/* "EINVAL: the value of msg_prio was outside the valid range." */
static void mq_send_of_an_impossible_priority_is_EINVAL(void)
{
    mqd_t queue = new_queue(5, 0);
    CHECK_ERRNO(mq_send(queue, "x", 1, MQ_PRIO_MAX), EINVAL);
}

/* "EAGAIN: O_NONBLOCK was set and the specified message queue is empty." */
static void mq_receive_of_an_empty_nonblocking_queue_is_EAGAIN(void)
{
    mqd_t queue = new_queue(5, O_NONBLOCK);
    CHECK_ERRNO(mq_receive(queue, buffer, sizeof buffer, NULL), EAGAIN);
}

/* "EAGAIN: O_NONBLOCK is set and the specified message queue is full": with mq_maxmsg messages. */
static void mq_send_to_a_full_nonblocking_queue_is_EAGAIN(void)
{
    mqd_t queue = new_queue(3, O_NONBLOCK);
    for (int message = 0; message < 3; message++)
        CHECK(mq_send(queue, "x", 1, 0) == 0);
    CHECK_ERRNO(mq_send(queue, "x", 1, 5), EAGAIN);
    CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
    CHECK(mq_send(queue, "x", 1, 0) == 0);
}

/* "ETIMEDOUT: no message arrived before the timeout expired", and not before that. */
static void mq_timedreceive_of_an_empty_queue_is_ETIMEDOUT(void)
{
    mqd_t queue = new_queue(5, 0);
    struct timespec limit = in_ms(20), now;
    CHECK_ERRNO(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit), ETIMEDOUT);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    CHECK(now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec));
}

/* "ETIMEDOUT: the timeout expired before the message could be added to the queue." */
static void mq_timedsend_to_a_full_queue_is_ETIMEDOUT(void)
{
    mqd_t queue = new_queue(1, 0);
    struct timespec limit = in_ms(20);
    CHECK(mq_send(queue, "x", 1, 0) == 0);
    CHECK_ERRNO(mq_timedsend(queue, "y", 1, 9, &limit), ETIMEDOUT);
    check_next(queue, "x", 0);
}

/* "Under no circumstance shall the operation fail with a timeout if a message can be removed (added) immediately." */
static void mq_limit_in_the_past_does_not_matter_to_what_need_not_wait(void)
{
    mqd_t queue = new_queue(5, 0);
    struct timespec limit = in_ms(-1000);
    CHECK(mq_timedsend(queue, "x", 1, 0, &limit) == 0);
    CHECK(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit) == 1);
    CHECK_ERRNO(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit), ETIMEDOUT);
}

/* "mq_receive() shall block until a message is enqueued." */
static void mq_receiver_that_waits_is_woken(void)
{
    mqd_t queue = new_queue(5, 0);
    struct timespec limit = in_ms(60000);
    pid_t child = start();
    if (child == 0) {
        check_next(queue, "first", 2);
        CHECK(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &limit) == 6);
        _exit(0);
    }
    pause_ms(20);
    CHECK(mq_send(queue, "first", 5, 2) == 0);
    pause_ms(20);
    CHECK(mq_send(queue, "second", 6, 0) == 0);
    ends_well(child);
}

/* "If the queue is full, mq_send() shall block until space becomes available." */
static void mq_sender_that_waits_is_woken(void)
{
    mqd_t queue = new_queue(1, 0);
    struct timespec limit = in_ms(60000);
    CHECK(mq_send(queue, "first", 5, 0) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK(mq_send(queue, "second", 6, 1) == 0);
        CHECK(mq_timedsend(queue, "third", 5, 2, &limit) == 0);
        _exit(0);
    }
    pause_ms(20);
    check_next(queue, "first", 0);
    check_next(queue, "second", 1);
    check_next(queue, "third", 2);
    ends_well(child);
}

/* "EEXIST: O_CREAT and O_EXCL are set and the named message queue already exists." */
static void mq_open_O_EXCL_of_what_exists_is_EEXIST(void)
{
    mqd_t queue = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
    CHECK(queue >= 0);
    CHECK_ERRNO(mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, NULL), EEXIST);
    CHECK(mq_open(NAME, O_CREAT | O_RDWR, 0600, NULL) >= 0);
    CHECK(mq_unlink(NAME) == 0);
}

/* "ENOENT: O_CREAT is not set and the named message queue does not exist." */
static void mq_open_of_what_is_not_there_is_ENOENT(void)
{
    CHECK_ERRNO(mq_open(NAME, O_RDWR), ENOENT);
    CHECK_ERRNO(mq_unlink(NAME), ENOENT);
}

/* "EINVAL: O_CREAT was specified and either mq_maxmsg or mq_msgsize was less than or equal to zero." */
static void mq_open_with_impossible_attributes_is_EINVAL(void)
{
    struct mq_attr none = {.mq_maxmsg = 0, .mq_msgsize = 64}, empty = {.mq_maxmsg = 5, .mq_msgsize = 0};
    CHECK_ERRNO(mq_open(NAME, O_CREAT | O_RDWR, 0600, &none), EINVAL);
    CHECK_ERRNO(mq_open(NAME, O_CREAT | O_RDWR, 0600, &empty), EINVAL);
    CHECK_ERRNO(mq_open(NAME, O_RDWR), ENOENT);
}

/* "mq_unlink: until the last close, who has it open goes on; another mq_open() with O_CREAT makes a new queue." */
static void mq_unlink_leaves_it_to_those_who_have_it_open(void)
{
    mqd_t old = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
    CHECK(old >= 0 && mq_send(old, "old", 3, 0) == 0);
    CHECK(mq_unlink(NAME) == 0);
    CHECK_ERRNO(mq_open(NAME, O_RDWR), ENOENT);
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 256};
    mqd_t new = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attributes);
    CHECK(new >= 0);
    CHECK_ERRNO(mq_receive(new, buffer, sizeof buffer, NULL), EAGAIN);
    CHECK(mq_send(new, "new", 3, 0) == 0);
    static char large[8192];
    CHECK(mq_receive(old, large, sizeof large, NULL) == 3 && memcmp(large, "old", 3) == 0);
    check_next(new, "new", 0);
    CHECK(mq_unlink(NAME) == 0);
}

/* A name leads all processes to the same queue, with the attributes it was made with; messages stay when their sender has ended. */
static void mq_name_is_found_by_others_and_outlives_its_maker(void)
{
    pid_t child = start();
    if (child == 0) {
        struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 64};
        mqd_t queue = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
        CHECK(queue >= 0 && mq_send(queue, "left", 4, 4) == 0);
        _exit(0);
    }
    ends_well(child);
    struct mq_attr other = {.mq_maxmsg = 7, .mq_msgsize = 7};
    mqd_t queue = mq_open(NAME, O_CREAT | O_RDWR | O_NONBLOCK, 0600, &other);
    CHECK(queue >= 0);
    CHECK(mq_send(queue, buffer, 64, 0) == 0);
    CHECK_ERRNO(mq_send(queue, "x", 1, 0), EAGAIN);
    check_next(queue, "left", 4);
    CHECK(mq_unlink(NAME) == 0);
}

/* "EBADF: the argument is not a valid message queue descriptor." */
static void mq_descriptor_that_is_closed_is_EBADF(void)
{
    mqd_t queue = new_queue(1, 0);
    CHECK(mq_close(queue) == 0);
    CHECK_ERRNO(mq_close(queue), EBADF);
    CHECK_ERRNO(mq_send(queue, "x", 1, 0), EBADF);
    CHECK_ERRNO(mq_receive(queue, buffer, sizeof buffer, NULL), EBADF);
}

/* Every message is received once, and those of one sender in order. */
static void mq_messages_of_many_senders_arrive_once(void)
{
    enum { SENDERS = 3, MESSAGES = 100 };
    mqd_t queue = new_queue(4, 0);
    pid_t children[SENDERS];
    int next[SENDERS] = {0}, message[2];
    for (int sender = 0; sender < SENDERS; sender++) {
        children[sender] = start();
        if (children[sender] == 0) {
            for (int number = 0; number < MESSAGES; number++) {
                int mine[2] = {sender, number};
                CHECK(mq_send(queue, (char *)mine, sizeof mine, 1) == 0);
            }
            _exit(0);
        }
    }
    for (int count = 0; count < SENDERS * MESSAGES; count++) {
        CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == sizeof message);
        memcpy(message, buffer, sizeof message);
        CHECK(message[0] >= 0 && message[0] < SENDERS && message[1] == next[message[0]]++);
    }
    for (int sender = 0; sender < SENDERS; sender++)
        ends_well(children[sender]);
}

/* "If more than one thread is waiting to receive, one of them gets the message": each of them one. */
static void mq_message_goes_to_one_of_several_receivers(void)
{
    mqd_t queue = new_queue(5, 0), answers = -1;
    struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 64};
    CHECK((answers = mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes)) >= 0 && mq_unlink(NAME) == 0);
    pid_t children[3];
    for (int receiver = 0; receiver < 3; receiver++) {
        children[receiver] = start();
        if (children[receiver] == 0) {
            CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
            CHECK(mq_send(answers, buffer, 1, buffer[0]) == 0);
            _exit(0);
        }
    }
    CHECK(mq_send(queue, "1", 1, 0) == 0 && mq_send(queue, "2", 1, 0) == 0 && mq_send(queue, "3", 1, 0) == 0);
    for (int receiver = 0; receiver < 3; receiver++)
        ends_well(children[receiver]);
    check_next(answers, "3", '3');
    check_next(answers, "2", '2');
    check_next(answers, "1", '1');
}

const struct test queues[] = {
    CASE(mq_highest_priority_is_received_first),
    CASE(mq_messages_of_one_priority_are_received_in_order),
    CASE(mq_messages_keep_their_boundaries),
    CASE(mq_message_may_have_no_octets),
    CASE(mq_send_of_too_long_a_message_is_EMSGSIZE),
    CASE(mq_receive_into_too_short_a_buffer_is_EMSGSIZE),
    CASE(mq_send_of_an_impossible_priority_is_EINVAL),
    CASE(mq_receive_of_an_empty_nonblocking_queue_is_EAGAIN),
    CASE(mq_send_to_a_full_nonblocking_queue_is_EAGAIN),
    CASE(mq_timedreceive_of_an_empty_queue_is_ETIMEDOUT),
    CASE(mq_timedsend_to_a_full_queue_is_ETIMEDOUT),
    CASE(mq_limit_in_the_past_does_not_matter_to_what_need_not_wait),
    CASE(mq_receiver_that_waits_is_woken),
    CASE(mq_sender_that_waits_is_woken),
    CASE(mq_open_O_EXCL_of_what_exists_is_EEXIST),
    CASE(mq_open_of_what_is_not_there_is_ENOENT),
    CASE(mq_open_with_impossible_attributes_is_EINVAL),
    CASE(mq_unlink_leaves_it_to_those_who_have_it_open),
    CASE(mq_name_is_found_by_others_and_outlives_its_maker),
    CASE(mq_descriptor_that_is_closed_is_EBADF),
    CASE(mq_messages_of_many_senders_arrive_once),
    CASE(mq_message_goes_to_one_of_several_receivers),
    END,
};
