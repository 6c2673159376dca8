"""The rows about libraries and applications that are such: in a pVM, and the same file in a Linux process in dom0.

The guest is tests/guests/src/bin/bench_dl.rs, the Linux program tests/bench/dl.c: both read the TSC.
"""

import os
import socket
import statistics
import tarfile
import time

from common import GUESTS, SAMPLES, measure, output, record, run_to_its_end, until_alone, wait_for, write_config

ANCHOR = "/root/dl"
# A tick of the TSC is an instruction, and a thousand are a microsecond.
TICKS = 1000
LIBRARY = "libz.so.1"
# By row: what the guest gets, and in which mode it runs. The file without a red zone is built from
# source, the other is the distribution's.
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
            # Each program and each guest opens for the first time once; the first of them has it
            # read from the disk.
            runs = range(SAMPLES + 1 if row == "dlopen_first" else 1)
            word = "first" if row == "dlopen_first" else "sample"
            for side, run in [("ours", lambda: in_guest(row, archive, mode)), ("anchor", in_dom0)]:
                values = [value for _ in runs for value in ticks(word, run())]
                record(row, side, values[-SAMPLES:])

    if "dlopen_memory" in wanted:
        dlopen_memory()
    if "run_app" in wanted:
        run_app()
    if "lib_update" in wanted:
        lib_update()


def dlopen_memory():
    """The memory of a pVM that a library takes, in KiB: mapped from the host's store, and copied from an archive of the pVM's own."""
    archive, mode = ROWS["dlopen"]
    with tarfile.open(archive) as files:
        files.extractall("/root/store")
    signer = [line for line in open(f"/root/store/{LIBRARY}.manifest") if line.startswith("signer ")]
    with open("/root/bench.pub", "w") as key:
        key.write(signer[0].split()[1] + "\n")
    output("pvm", "key", "trust", "/root/bench.pub")
    output("pvm", "lib", "add", f"/root/store/{LIBRARY}")
    for side, settings in [("ours", {}), ("anchor", {"ramdisk": archive})]:
        said = [run_guest(f"dlopen-memory-{side}-{number}", mode, **settings) for number in range(SAMPLES)]
        record("dlopen_memory", side, [value * TICKS / 1024 for guest in said for value in ticks("memory", guest)])
    output("pvm", "lib", "remove", LIBRARY)


def lib_update():
    """The longest that a client waits for an answer while the server's library is replaced, and what it waits for one otherwise."""
    config = write_config("lib-update", kernel=GUESTS / "page_server", memory=64, vif=["bridge=xenbr0"],
                          extra="net=10.0.0.2/24", ramdisk="/run/zooid/libraries.tar")
    output("xl", "create", "-q", config)
    wait_for("lib-update", "pages on port 80", 60)
    with socket.create_connection(("10.0.0.2", 80), 30) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        worst = [longest(server, number) for number in range(SAMPLES + 1)]
        usual = [statistics.median(waited(server, "/1")[0] for _ in range(50)) for _ in range(SAMPLES)]
    record("lib_update", "ours", worst[1:])
    record("lib_update", "anchor", usual)
    output("xl", "destroy", "lib-update")
    until_alone()


def longest(server, number):
    """Has the library replaced for the `number`th time, and asks all the while."""
    waited(server, "/update?1")
    worst = 0
    while f"updates {number + 1} busy 0" not in waited(server, "/state")[1]:
        worst = max(worst, *(waited(server, "/1")[0] for _ in range(5)))
    return worst


def waited(server, path):
    """Microseconds until the answer is whole, and the answer."""
    begin = time.monotonic()
    server.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, body = b"", b""
    while b"\r\n\r\n" not in head:
        head += server.recv(65536)
    head, body = head.split(b"\r\n\r\n", 1)
    while len(body) < int(head.split(b"Content-Length: ")[1]):
        body += server.recv(65536)
    return (time.monotonic() - begin) * 1e6, body.decode()


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
    return run_guest(row.replace("_", "-"), mode, ramdisk=archive)


def run_guest(name, mode, **settings):
    """Runs the guest; what it has said."""
    return run_to_its_end(name, 600, kernel=GUESTS / "bench_dl", memory=16, extra=f"mode={mode} -- {LIBRARY} {SAMPLES}",
                          **settings)


def in_dom0():
    return output(ANCHOR, f"/root/{LIBRARY}", str(SAMPLES))


def ticks(word, said):
    return [int(line.split()[1]) / TICKS for line in said.splitlines() if line.startswith(f"{word} ")]
