"""The rows about libraries and applications that are such: in a pVM, and the same file in a Linux process in dom0.

The guest is tests/guests/src/bin/bench_dl.rs, the Linux program tests/bench/dl.c: both read the TSC.
"""

import os
import tarfile
import time

from common import GUESTS, SAMPLES, measure, output, record, until_alone, wait_for, write_config

ANCHOR = "/root/dl"
# A tick of the TSC is an instruction, and a thousand are a microsecond.
TICKS = 1000
LIBRARY = "libz.so.1"
# By row: what the guest gets, and in which mode it runs. The file without a red zone is built from source, the other is the distribution's.
ROWS = {
    "dlopen": ("/run/zooid/real/zlib.tar", "kernel"),
    "dlopen_first": ("/run/zooid/real/zlib.tar", "kernel"),
    "dlopen_user": ("/run/zooid/real/unmodified/zlib.tar", "user"),
}


def measure_rows(wanted):
    """Measures those of `wanted` that are about libraries."""
    for row, (archive, mode) in ROWS.items():
        if row in wanted:
            with tarfile.open(archive) as files:
                files.extract(LIBRARY, "/root")
            os.chmod(ANCHOR, 0o755)
            # Each program and each guest opens for the first time once; the first of them has it read from the disk.
            runs = range(SAMPLES + 1 if row == "dlopen_first" else 1)
            word = "first" if row == "dlopen_first" else "sample"
            for side, run in [("ours", lambda: in_guest(row, archive, mode)), ("anchor", in_dom0)]:
                values = [value for _ in runs for value in ticks(word, run())]
                record(row, side, values[-SAMPLES:])


    if "run_app" in wanted:
        run_app()


def run_app():
    """An application in a child of an empty pVM that has booted, and one that is an image: until `pvm run` has heard of it."""
    empty = write_config("run-app", kernel=GUESTS / "empty", memory=16, ramdisk="/run/zooid/libraries.tar")
    measure("run_app", "ours", lambda: run("--app", "libapp.so", empty))
    output("pvm", "kill", "run-app")
    until_alone()
    measure("run_app", "anchor", lambda: run("hello"))


def run(*words):
    begin = time.monotonic()
    id = output("pvm", "run", *words).strip()
    taken = time.monotonic() - begin
    # That of the application says how many words it got.
    output("sh", "-c", f"pvm wait {id} >/dev/null || [ $? = 1 ]")
    return taken * 1000


def in_guest(row, archive, mode):
    """Runs the guest; what it has said."""
    name = row.replace("_", "-")
    config = write_config(name, kernel=GUESTS / "bench_dl", memory=16, tsc_mode="native", ramdisk=archive,
                          extra=f"mode={mode} -- {LIBRARY} {SAMPLES}")
    print(f"bench: starting {name}", flush=True)
    output("xl", "create", "-q", config)
    said = wait_for(name, "Test result: ", 600)
    if "Test result: SUCCESS" not in said:
        raise SystemExit(f"{name} has failed:\n{said}")
    until_alone()
    return said


def in_dom0():
    return output(ANCHOR, f"/root/{LIBRARY}", str(SAMPLES))


def ticks(word, said):
    return [int(line.split()[1]) / TICKS for line in said.splitlines() if line.startswith(f"{word} ")]
