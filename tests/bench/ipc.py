"""The rows about IpC: between a pVM and its child, and between two Linux processes in dom0.

The guest is tests/guests/src/bin/bench_ipc.rs, the Linux program tests/bench/ipc.c: both read the TSC.
"""

import os

from common import CONSOLES, GUESTS, SAMPLES, output, record, run_to_its_end

# The program writes lines "sample ROW TICKS".
ANCHOR = "/root/ipc"
# A tick of the TSC is an instruction, and a thousand are a microsecond.
TICKS = 1000
MIB = 1 << 20


def measure_rows(wanted):
    """Measures those of `wanted` that are about IpC."""
    for row in [row for row in ROWS if row in wanted]:
        said = run(row)
        if row == "ipc_first":
            trips = [words for log in CONSOLES.glob("guest-ipc-first-*.log") for words in first(log)][-SAMPLES:]
            record(row, "ours", [int(trip) / TICKS for trip, _ in trips])
            record(row, "anchor", [int(trip) / TICKS for _, trip in trips])
        elif row == "mq_bulk":
            record(row, "ours", samples(said))
        else:
            os.chmod(ANCHOR, 0o755)
            take = rates if row == "pipe_bulk" else samples
            record(row, "ours", take(said))
            record(row, "anchor", take(output(ANCHOR, row, str(SAMPLES))))


def run(row):
    """Runs the guest; what it has said."""
    settings = {"kernel": GUESTS / "bench_ipc", "memory": 32, "extra": f"-- {row} {SAMPLES}"}
    return run_to_its_end(row.replace("_", "-"), 1800, **settings)


def first(log):
    """The times that a child prints of its first and of a later trip."""
    return [line.split()[1:3] for line in log.read_text(errors="replace").splitlines() if line.startswith("first ")]


def samples(said):
    return [int(line.split()[2]) / TICKS for line in said.splitlines() if line.startswith("sample ")]


def rates(said):
    """MiB/s, of ticks for a MiB."""
    return [1e6 / microseconds for microseconds in samples(said)]


ROWS = ["pipe", "pipe_4k", "pipe_64k", "pipe_bulk", "mq", "mq_bulk", "signal", "shm", "sem", "exit_wait", "ipc_first"]
