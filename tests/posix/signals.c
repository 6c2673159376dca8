/* kill, signal, sigprocmask, sigwait. A handler says that it ran by a semaphore or a pipe: a pVM's
   runs in a thread of its own. */
#include "posix.h"

static sem_t *handled;
static volatile sig_atomic_t number, times;

static void handle(int signal)
{
    number = signal;
    times++;
    sem_post(handled);
}

static sem_t *new_semaphore(void)
{
    sem_t *semaphore = shared(sizeof *semaphore);
    CHECK(sem_init(semaphore, 1, 0) == 0);
    return semaphore;
}

static void handle_by(int signal_number, sighandler_t handler)
{
    if (!handled)
        handled = new_semaphore();
    CHECK(signal(signal_number, handler) != SIG_ERR);
}

static void block(int signal)
{
    sigset_t set = set_of(signal);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
}

static void unblock(int signal)
{
    sigset_t set = set_of(signal);
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
}

/* A child that only waits. */
static pid_t idle_child(void)
{
    pid_t child = start();
    if (child == 0)
        for (;;)
            pause_ms(1000000);
    return child;
}

/* "The function func() shall be called, with the signal number as argument." */
static void signal_handler_is_called_with_the_number(void)
{
    static const int all[] = {SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGTERM, SIGALRM};
    for (size_t at = 0; at < sizeof all / sizeof *all; at++) {
        handle_by(all[at], handle);
        CHECK(kill(getpid(), all[at]) == 0);
        CHECK(sem_wait(handled) == 0 && number == all[at]);
    }
    CHECK(times == sizeof all / sizeof *all);
}

#if __STDC_HOSTED__
/* "If pid is the caller's own, at least one signal shall be delivered before kill() returns." */
static void signal_to_oneself_is_delivered_before_kill_returns(void)
{
    handle_by(SIGUSR1, handle);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(times == 1);
}

/* "EINTR: the function was interrupted by a signal": of a handler that was set without
   SA_RESTART. */
static void signal_interrupts_a_call(void)
{
    struct sigaction action = {.sa_handler = handle};
    char octet;
    int ends[2];
    handle_by(SIGUSR1, handle);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(kill(getppid(), SIGUSR1) == 0);
        _exit(0);
    }
    CHECK_ERRNO(read(ends[0], &octet, 1), EINTR);
    ends_well(child);
}

/* "Existing process": its lifetime ends when it has been waited for. */
static void kill_finds_who_has_ended_and_was_not_waited_for(void)
{
    int taken;
    sigset_t set = set_of(SIGCHLD);
    block(SIGCHLD);
    pid_t child = start();
    if (child == 0)
        _exit(0);
    CHECK(sigwait(&set, &taken) == 0);
    CHECK(kill(child, 0) == 0);
    ends_well(child);
    CHECK_ERRNO(kill(child, 0), ESRCH);
}
#endif

/* "SIG_IGN: delivery of the signal shall have no effect on the process." */
static void signal_that_is_ignored_does_nothing(void)
{
    handle_by(SIGUSR2, handle);
    CHECK(signal(SIGUSR1, SIG_IGN) != SIG_ERR && signal(SIGTERM, SIG_IGN) != SIG_ERR);
    CHECK(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGTERM) == 0 && kill(getpid(), SIGUSR2) == 0);
    CHECK(sem_wait(handled) == 0);
    CHECK(times == 1 && number == SIGUSR2);
}

/* "Abnormal termination of the process": the default of these, and the status tells which it
   was. */
static void signal_by_default_ends_the_process(void)
{
    static const int all[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM};
    for (size_t at = 0; at < sizeof all / sizeof *all; at++) {
        pid_t child = idle_child();
        CHECK(kill(child, all[at]) == 0);
        ends_by(child, all[at]);
    }
}

/* The same in a process that handles others, and after SIG_DFL was set again. */
static void signal_default_can_be_set_again(void)
{
    handle_by(SIGUSR1, handle);
    handle_by(SIGUSR2, handle);
    pid_t child = start();
    if (child == 0) {
        CHECK(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
        CHECK(kill(getpid(), SIGUSR1) == 0);
        for (;;)
            pause_ms(1000000);
    }
    ends_by(child, SIGUSR1);
    child = idle_child();
    CHECK(kill(child, SIGTERM) == 0);
    ends_by(child, SIGTERM);
}

/* "Ignore the signal" is the default of SIGCHLD and SIGURG, and SIGCONT does nothing to who
   runs. */
static void signal_by_default_some_are_ignored(void)
{
    pid_t child = idle_child();
    CHECK(kill(child, SIGCHLD) == 0 && kill(child, SIGURG) == 0 && kill(child, SIGCONT) == 0);
    CHECK(kill(child, SIGTERM) == 0);
    ends_by(child, SIGTERM);
    handle_by(SIGUSR1, handle);
    CHECK(kill(getpid(), SIGCHLD) == 0 && kill(getpid(), SIGURG) == 0 && kill(getpid(), SIGCONT) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0 && sem_wait(handled) == 0);
}

/* "If the signal is blocked, it shall remain pending until it is unblocked." */
static void signal_that_is_blocked_waits(void)
{
    handle_by(SIGUSR1, handle);
    handle_by(SIGUSR2, handle);
    block(SIGUSR1);
    CHECK(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGUSR2) == 0);
    CHECK(sem_wait(handled) == 0 && number == SIGUSR2 && times == 1);
    unblock(SIGUSR1);
    CHECK(sem_wait(handled) == 0 && number == SIGUSR1 && times == 2);
}

/* "It is implementation-defined whether a pending signal is delivered more than once": on Linux it
   is not. */
static void signal_that_is_blocked_is_merged(void)
{
    handle_by(SIGUSR1, handle);
    handle_by(SIGUSR2, handle);
    block(SIGUSR1);
    for (int time = 0; time < 5; time++)
        CHECK(kill(getpid(), SIGUSR1) == 0);
    unblock(SIGUSR1);
    CHECK(sem_wait(handled) == 0);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    CHECK(sem_wait(handled) == 0);
    CHECK(number == SIGUSR2 && times == 2);
}

/* "SIG_SETMASK: the resulting set shall be the signal set pointed to by set." */
static void signal_mask_can_be_set_as_a_whole(void)
{
    handle_by(SIGUSR1, handle);
    handle_by(SIGUSR2, handle);
    block(SIGUSR1);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    sigset_t set = set_of(SIGUSR2);
    CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
    CHECK(sem_wait(handled) == 0 && number == SIGUSR1);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    set = set_of(SIGUSR1);
    CHECK_ERRNO(sem_trywait(handled), EAGAIN);
    CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
    CHECK(sem_wait(handled) == 0 && number == SIGUSR2);
}

/* "sigwait() shall select a pending signal from set and atomically clear it": no handler runs. */
static void sigwait_takes_a_pending_signal(void)
{
    int taken;
    handle_by(SIGUSR1, handle);
    block(SIGUSR1);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    sigset_t set = set_of(SIGUSR1);
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR1);
    unblock(SIGUSR1);
    handle_by(SIGUSR2, handle);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    CHECK(sem_wait(handled) == 0 && number == SIGUSR2 && times == 1);
}

/* "If no signal in set is pending, the thread shall be suspended until one becomes pending." */
static void sigwait_waits_for_a_signal(void)
{
    int taken;
    block(SIGUSR1);
    block(SIGUSR2);
    sigset_t set = set_of(SIGUSR1);
    sigaddset(&set, SIGUSR2);
    pid_t child = start();
    if (child == 0) {
        pause_ms(20);
        CHECK(kill(getppid(), SIGUSR2) == 0);
        _exit(0);
    }
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR2);
    ends_well(child);
}

/* "EAGAIN: no signal specified by set was generated within the specified timeout period." */
static void sigtimedwait_without_a_signal_is_EAGAIN(void)
{
    struct timespec short_time = {0, 20000000}, none = {0, 0};
    block(SIGUSR1);
    block(SIGUSR2);
    sigset_t set = set_of(SIGUSR1);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    CHECK_ERRNO(sigtimedwait(&set, NULL, &none), EAGAIN);
    CHECK_ERRNO(sigtimedwait(&set, NULL, &short_time), EAGAIN);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(sigtimedwait(&set, NULL, &none) == SIGUSR1);
}

/* "If sig is 0, error checking is performed but no signal is actually sent." "ESRCH: no process can
   be found corresponding to pid." */
static void kill_with_0_tells_who_lives(void)
{
    pid_t child = idle_child();
    CHECK(kill(child, 0) == 0 && kill(getpid(), 0) == 0 && kill(getppid(), 0) == 0);
    kill_and_reap(child);
    CHECK_ERRNO(kill(child, 0), ESRCH);
    CHECK_ERRNO(kill(child, SIGTERM), ESRCH);
    CHECK_ERRNO(kill(child, SIGKILL), ESRCH);
}

/* "EINVAL: the value of the sig argument is an invalid or unsupported signal number." */
static void kill_with_no_signal_is_EINVAL(void)
{
    CHECK_ERRNO(kill(getpid(), 1000), EINVAL);
    CHECK_ERRNO(kill(getpid(), -1), EINVAL);
    pid_t child = idle_child();
    CHECK_ERRNO(kill(child, 1000), EINVAL);
    kill_and_reap(child);
}

/* "EINVAL: an attempt is made to catch a signal that cannot be caught or ignore a signal that
   cannot be ignored." */
static void signal_SIGKILL_cannot_be_caught_or_blocked(void)
{
    sigset_t all;
    errno = 0;
    CHECK(signal(SIGKILL, handle) == SIG_ERR && errno == EINVAL);
    CHECK(signal(SIGKILL, SIG_IGN) == SIG_ERR && signal(SIGSTOP, handle) == SIG_ERR);
    CHECK(signal(1000, handle) == SIG_ERR && signal(-1, handle) == SIG_ERR);
    sigfillset(&all);
    CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    kill_and_reap(idle_child());
}

/* A process may end itself by SIGKILL. */
static void signal_SIGKILL_to_oneself_ends(void)
{
    pid_t child = start();
    if (child == 0) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause_ms(1000000);
    }
    ends_by(child, SIGKILL);
}

/* "SIGCHLD: child process terminated", by an exit or by a signal. */
static void signal_SIGCHLD_tells_of_the_end_of_a_child(void)
{
    int taken;
    sigset_t set = set_of(SIGCHLD);
    block(SIGCHLD);
    pid_t child = start();
    if (child == 0)
        _exit(0);
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGCHLD);
    ends_well(child);
    child = idle_child();
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGCHLD);
    ends_by(child, SIGKILL);
    handle_by(SIGCHLD, handle);
    unblock(SIGCHLD);
    child = start();
    if (child == 0)
        _exit(0);
    CHECK(sem_wait(handled) == 0 && number == SIGCHLD);
    ends_well(child);
}

/* "Signals set to be caught by the calling process" are caught by a child, too, and those that are
   ignored, ignored. */
static void signal_handlers_are_inherited(void)
{
    handle_by(SIGUSR1, handle);
    handle_by(SIGUSR2, SIG_IGN);
    pid_t child = start();
    if (child == 0) {
        CHECK(sem_wait(handled) == 0);
        CHECK(number == SIGUSR1 && times == 1);
        _exit(0);
    }
    CHECK(kill(child, SIGUSR2) == 0 && kill(child, SIGUSR1) == 0);
    ends_well(child);
    CHECK(times == 0);
}

/* "The new process shall have a copy of the signal mask", and "the set of signals pending for the
   child shall be the empty set." */
static void signal_mask_is_inherited_and_pending_signals_are_not(void)
{
    struct timespec none = {0, 0};
    int taken;
    sigset_t set = set_of(SIGUSR1);
    block(SIGUSR1);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    pid_t child = start();
    if (child == 0) {
        CHECK_ERRNO(sigtimedwait(&set, NULL, &none), EAGAIN);
        CHECK(kill(getpid(), SIGUSR1) == 0);
        CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR1);
        _exit(0);
    }
    ends_well(child);
    CHECK(sigtimedwait(&set, NULL, &none) == SIGUSR1);
}

/* An action set in a child is the child's own. */
static void signal_handlers_of_a_child_are_its_own(void)
{
    handle_by(SIGUSR1, handle);
    pid_t child = start();
    if (child == 0) {
        CHECK(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
        block(SIGUSR1);
        _exit(0);
    }
    ends_well(child);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(sem_wait(handled) == 0 && times == 1);
}

/* A handler runs while the process computes. */
static void signal_reaches_a_busy_process(void)
{
    handle_by(SIGUSR1, handle);
    pid_t child = start();
    if (child == 0) {
        while (times == 0)
            ;
        _exit(0);
    }
    CHECK(kill(child, SIGUSR1) == 0);
    ends_well(child);
}

/* A handler runs while the process waits in a call, which goes on afterwards (SA_RESTART). */
static void signal_reaches_a_process_that_waits(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    handle_by(SIGUSR1, handle);
    pid_t child = start();
    if (child == 0) {
        char octet;
        CHECK(read(ends[0], &octet, 1) == 1 && times == 1);
        _exit(0);
    }
    pause_ms(20);
    CHECK(kill(child, SIGUSR1) == 0);
    CHECK(sem_wait(handled) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    ends_well(child);
}

/* A default action ends a process that waits or computes. */
static void signal_ends_a_process_that_waits_or_is_busy(void)
{
    int ends[2];
    char octet;
    CHECK(pipe(ends) == 0);
    pid_t child = start();
    if (child == 0) {
        read(ends[0], &octet, 1);
        _exit(0);
    }
    pause_ms(20);
    CHECK(kill(child, SIGTERM) == 0);
    ends_by(child, SIGTERM);
    child = start();
    if (child == 0)
        for (volatile int busy = 0;; busy++)
            ;
    CHECK(kill(child, SIGTERM) == 0);
    ends_by(child, SIGTERM);
}

/* One that was blocked ends the process as soon as it is not. */
static void signal_that_was_blocked_ends_when_it_is_unblocked(void)
{
    int ends[2];
    char octet;
    CHECK(pipe(ends) == 0);
    block(SIGTERM);
    pid_t child = start();
    if (child == 0) {
        read_all(ends[0], &octet, 1);
        unblock(SIGTERM);
        for (;;)
            pause_ms(1000000);
    }
    CHECK(kill(child, SIGTERM) == 0);
    CHECK(kill(child, 0) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    ends_by(child, SIGTERM);
}

/* Any relative may send: a child to its parent, and to its sibling. */
static void signal_can_be_sent_to_any_relative(void)
{
    sem_t *there = new_semaphore();
    sigset_t set = set_of(SIGUSR1);
    int taken;
    block(SIGUSR1);
    pid_t first = start();
    if (first == 0) {
        CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR1);
        CHECK(sem_post(there) == 0);
        _exit(0);
    }
    pid_t second = start();
    if (second == 0) {
        CHECK(kill(first, SIGUSR1) == 0);
        CHECK(sem_wait(there) == 0);
        CHECK(kill(getppid(), SIGUSR1) == 0);
        _exit(0);
    }
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR1);
    ends_well(first);
    ends_well(second);
}

/* "ECHILD: the calling process has no existing unwaited-for child processes." "WNOHANG: 0 if none
   has ended." */
static void waitpid_knows_its_children(void)
{
    int status;
    CHECK_ERRNO(waitpid(-1, &status, 0), ECHILD);
    pid_t child = idle_child();
    CHECK(waitpid(child, &status, WNOHANG) == 0 && waitpid(-1, NULL, WNOHANG) == 0);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(-1, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_ERRNO(waitpid(child, &status, 0), ECHILD);
    child = start();
    if (child == 0)
        _exit(42);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

const struct test signals[] = {
    CASE(signal_handler_is_called_with_the_number),
    LINUX_ONLY(signal_to_oneself_is_delivered_before_kill_returns, "a pVM's handlers run in a thread of their own"),
    LINUX_ONLY(signal_interrupts_a_call, "a pVM's handlers run in a thread of their own"),
    CASE(signal_that_is_ignored_does_nothing),
    CASE(signal_by_default_ends_the_process),
    CASE(signal_default_can_be_set_again),
    CASE(signal_by_default_some_are_ignored),
    CASE(signal_that_is_blocked_waits),
    CASE(signal_that_is_blocked_is_merged),
    CASE(signal_mask_can_be_set_as_a_whole),
    CASE(sigwait_takes_a_pending_signal),
    CASE(sigwait_waits_for_a_signal),
    CASE(sigtimedwait_without_a_signal_is_EAGAIN),
    CASE(kill_with_0_tells_who_lives),
    LINUX_ONLY(kill_finds_who_has_ended_and_was_not_waited_for, "a pVM that has ended is gone"),
    CASE(kill_with_no_signal_is_EINVAL),
    CASE(signal_SIGKILL_cannot_be_caught_or_blocked),
    CASE(signal_SIGKILL_to_oneself_ends),
    CASE(signal_SIGCHLD_tells_of_the_end_of_a_child),
    CASE(signal_handlers_are_inherited),
    CASE(signal_mask_is_inherited_and_pending_signals_are_not),
    CASE(signal_handlers_of_a_child_are_its_own),
    CASE(signal_reaches_a_busy_process),
    CASE(signal_reaches_a_process_that_waits),
    CASE(signal_ends_a_process_that_waits_or_is_busy),
    CASE(signal_that_was_blocked_ends_when_it_is_unblocked),
    CASE(signal_can_be_sent_to_any_relative),
    CASE(waitpid_knows_its_children),
    END,
};
