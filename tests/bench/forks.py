"""The rows about forks: guests that fork through pvmd, and Linux processes that fork in dom0.

The guest is tests/guests/src/bin/bench_fork.rs, the Linux program tests/bench/fork.c: both read the TSC.
"""

import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path

from common import CONSOLES, GUESTS, SAMPLES, output, record, until_alone, wait_for, write_config

# The program writes lines "sample ROW TICKS".
ANCHOR = "/root/fork"
# A tick of the TSC is an instruction, and a thousand are a microsecond.
TICKS = 1000
# Behind the name of a row that is measured with copies through grants.
GRANT = "_grant"
# pVMs alive at once in `fork_1000`, as many as a few minutes make, and how many forks make up a
# sample of it.
ALIVE = {"": 400, GRANT: 200}
AT_ONCE = 20
# Children that make up a sample of `clone_mem`: Xen says how much is free in whole MiB.
CLONES = 40
# dom0's processes whose memory grows with each pVM.
DAEMONS = ["pvmd", "xenconsoled", "xenstored"]


def measure_rows(wanted):
    """Measures those of `wanted` that are about forks."""
    for backend, ending in [("foreign", ""), ("grant", GRANT)]:
        rows = [row for row in ROWS if row + ending in wanted]
        if not rows:
            continue
        # Without limits on how much and how fast.
        restart_daemon("--backend", backend, "--family-pvms", "8000", "--family-memory", "64G",
                       "--family-forks-per-second", "1000000", "--host-forks-per-second", "1000000")
        for measure, some in MEASURES:
            chosen = [row for row in rows if row in some]
            if chosen:
                measure(chosen, ending)
        Path(f"/root/out/stats{ending}.json").write_text(output("pvm", "stats", "--json"))
    restart_daemon()


# Rows


def fork(rows, ending):
    """One run of the guest for all of the rows that are about forking dirty pages."""
    forks = run("fork", 16, SAMPLES + 1)[1:]
    for row in rows:
        ours = [fork.pause if row == "fork_pause" else fork.whole for fork in forks]
        record(row + ending, "ours", ours)
        record(row + ending, "anchor", anchor("fork_dirty" if row == "fork_dirty" else "fork"))


def fork_clean(rows, ending):
    record("fork_clean" + ending, "ours", [fork.whole for fork in run("fork_clean", 16, SAMPLES + 1)[1:]])
    record("fork_clean" + ending, "anchor", anchor("fork"))


def fork_cold(rows, ending):
    record("fork_cold" + ending, "ours", [fork.whole for fork in run("fork_cold", 16, SAMPLES + 1)[1:]])
    record("fork_cold" + ending, "anchor", anchor("fork"))


def fork_write(rows, ending):
    record("fork_write" + ending, "ours", [fork.whole for fork in run("fork_write", 24, SAMPLES + 1)[1:]])
    record("fork_write" + ending, "anchor", anchor("fork_write"))


def fork_256(rows, ending):
    record("fork_256" + ending, "ours", [fork.whole for fork in run("fork_256", 288, SAMPLES + 1)[1:]])
    record("fork_256" + ending, "anchor", anchor("fork_256"))


def fork_first(rows, ending):
    """The first fork of each of several guests, and its second."""
    forks = [run("fork", 16, 2) for _ in range(SAMPLES + 1)][1:]
    record("fork_first" + ending, "ours", [first.whole for first, _ in forks])
    record("fork_first" + ending, "anchor", [second.whole for _, second in forks])


def fork_rate(rows, ending):
    name = start("fork_rate", 16, SAMPLES + 1)
    said = wait_for(name, "Test result: ", 600)
    check(name, said)
    until_alone()
    record("fork_rate" + ending, "ours", samples(said)[1:])
    record("fork_rate" + ending, "anchor", anchor("fork_rate"))


def fork_1000(rows, ending):
    """The last hundred forks of a parent whose children live on, and its first hundred."""
    alive = ALIVE[ending]
    name = start("fork_1000", 16, alive)
    said = wait_for(name, f"alive: {alive}\n", 2 * alive)
    forks = [fork.whole for fork in parse(name, said)]
    end_family(name)
    parts = [statistics.median(forks[at:at + AT_ONCE]) for at in range(0, len(forks), AT_ONCE)]
    record("fork_1000" + ending, "ours", parts[-SAMPLES:])
    record("fork_1000" + ending, "anchor", parts[:SAMPLES])


def clone_mem(rows, ending):
    """MiB that one idle child takes, and that one pVM takes that has booted."""
    name = start("clone_mem", 8, (SAMPLES + 1) * CLONES)
    used = []
    for number in range(0, (SAMPLES + 2) * CLONES, CLONES):
        wait_for(name, f"alive: {number}\n", 600)
        used.append(memory_used())
    end_family(name)
    record("clone_mem" + ending, "ours", [(after - before) / CLONES for before, after in zip(used[1:], used[2:])])

    # Nothing is to be prepared for these.
    stop_daemon()
    used = []
    for number in range(SAMPLES + 2):
        wait_for(start("clone_mem", 8, 0), "alive: 0\n", 60)
        used.append(memory_used())
    record("clone_mem" + ending, "anchor", [after - before for before, after in zip(used[1:], used[2:])])
    output("start-pvmd")
    output("sh", "-c", "xl list | awk 'NR > 2 { print $2 }' | xargs -n 1 xl destroy || :")
    until_alone()


# Each measuring function, with the rows that one run of it gives.
MEASURES = [
    (fork, ["fork", "fork_pause", "fork_dirty"]),
    (fork_clean, ["fork_clean"]),
    (fork_cold, ["fork_cold"]),
    (fork_write, ["fork_write"]),
    (fork_256, ["fork_256"]),
    (fork_first, ["fork_first"]),
    (fork_rate, ["fork_rate"]),
    (fork_1000, ["fork_1000"]),
    (clone_mem, ["clone_mem"]),
]
ROWS = [row for _, some in MEASURES for row in some]


# Guests


class Fork:
    """One fork, in microseconds of the instruction clock."""

    def __init__(self, called, returned, done):
        # From the call to its return in the parent.
        self.pause = (returned - called) / TICKS
        # From the call until both sides are done with what is timed.
        self.whole = (max(returned, done) - called) / TICKS


started = 0


def start(row, memory, rounds):
    """Starts the guest; its name, which no guest before had, so that its console and its children's are new."""
    global started
    started += 1
    name = f"{row.replace('_', '-')}-{started}"
    config = write_config(name, kernel=GUESTS / "bench_fork", memory=memory, tsc_mode="native", extra=f"-- {row} {rounds}")
    print(f"bench: starting {name}", flush=True)
    output("xl", "create", "-q", config)
    return name


def run(row, memory, rounds):
    """The forks of a guest that ends by itself."""
    name = start(row, memory, rounds)
    said = wait_for(name, "Test result: ", 600)
    check(name, said)
    until_alone()
    forks = parse(name, said)
    if len(forks) != rounds:
        sys.exit(f"{name} has forked {len(forks)} times, not {rounds}")
    return forks


def check(name, said):
    if "Test result: SUCCESS" not in said:
        sys.exit(f"{name} has failed:\n{said}")


def parse(name, said):
    """The lines of a guest and its children about its forks."""
    done = {}
    for log in CONSOLES.glob(f"guest-{name}-*.log"):
        words = log.read_text(errors="replace").split()
        if "end" in words:
            at = words.index("end")
            done[words[at + 2]] = int(words[at + 3])
    forks = []
    for line in said.splitlines():
        match line.split():
            case ["begin", _, number, called, returned]:
                if number not in done:
                    sys.exit(f"{name}: child {number} has not said when it was done")
                forks.append(Fork(int(called), int(returned), done[number]))
    return forks


def end_family(name):
    output("pvm", "kill", "--family", name)
    until_alone()


def anchor(row):
    os.chmod(ANCHOR, 0o755)
    return samples(output(ANCHOR, row, str(SAMPLES + 1)))[1:]


def samples(said):
    return [int(line.split()[2]) / TICKS for line in said.splitlines() if line.startswith("sample ")]


def memory_used():
    """Memory in MiB that Xen has given away, and that dom0's daemons have."""
    free = re.search(r"^free_memory +: (\d+)$", output("xl", "info"), re.MULTILINE)[1]
    return sum(resident(daemon) for daemon in DAEMONS) - int(free)


def resident(program):
    """MiB of a program's own memory."""
    for pid in output("sh", "-c", f"pidof {program} || :").split():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0


# The daemon


def restart_daemon(*options):
    stop_daemon()
    output("start-pvmd", *options)


def stop_daemon():
    for pid in output("sh", "-c", "pidof pvmd || :").split():
        os.kill(int(pid), signal.SIGTERM)
        while Path(f"/proc/{pid}/exe").exists():
            time.sleep(0.02)
