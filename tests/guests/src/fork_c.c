/* The C ABI, called from C: forks, exits, waits. Returns 0 when all is as zooid.h says, else the line that found out. */
#include <stddef.h>

#include "zooid.h"

static int prepared, in_parent, in_child;

static void prepare(void) { prepared++; }
static void parent(void) { in_parent++; }
static void child(void) { in_child++; }

#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)

int fork_c(void)
{
    int status = -1, ids[3], seen = 0;

    pvm_atfork(prepare, parent, child);
    pvm_atfork(NULL, NULL, child);
    CHECK(pvm_wait(NULL) == -10);
    CHECK(pvm_getpid() > 0 && pvm_getppid() == 0);

    int self = pvm_getpid();
    int id = pvm_fork();
    if (id == 0)
        pvm_exit(prepared == 1 && in_child == 2 && in_parent == 0 && pvm_getppid() == self ? 42 : 1);
    CHECK(id > 0 && prepared == 1 && in_parent == 1 && in_child == 0);
    CHECK(pvm_waitpid(id, &status, 0) == id);
    CHECK(PVM_EXITED(status) && PVM_EXIT_CODE(status) == 42);
    CHECK(pvm_waitpid(id, &status, 0) == -10);

    int made = pvm_fork_many(3, ids);
    if (made == 0)
        pvm_exit(0);
    CHECK(made == 3 && ids[0] != ids[1] && ids[1] != ids[2]);
    while (seen < 3) {
        id = pvm_waitpid(-1, &status, PVM_WNOHANG);
        CHECK(id == 0 || (id > 0 && PVM_EXITED(status)));
        seen += id > 0;
    }
    CHECK(pvm_fork_many(0, ids) == -22);
    return 0;
}
