#!/usr/bin/python3
"""`make bench` in dom0: measures the rows that /root/rows names, ours and the anchor's, under the instruction clock.

Every sample is a line "ROW ours|anchor VALUE" of /root/out/samples. docs/benchmarks.md says what each row means.
"""

import json
import os
import re
import select
import statistics
import sys
import time
from pathlib import Path

sys.path.append("/root")
import dl
import forks
import ipc
from common import CONSOLES, GUESTS, destroy, measure, output, watch_consoles, with_guest, write_config

# The first line of examples/hello.
HELLO = b"Hello from a pVM!"
LINUX_ADDRESS = "10.0.0.9"


def main():
    wanted = set(Path("/root/rows").read_text().split())
    if "min_memory" in wanted:
        measure("min_memory", "ours", min_memory)
    if "boot_xl" in wanted:
        measure_boot()
    network = [row for row in NETWORK if row in wanted]
    if network:
        measure_network(network)
    forks.measure_rows(wanted)
    ipc.measure_rows(wanted)
    dl.measure_rows(wanted)


# Starting a guest


def measure_boot():
    hello = write_config("hello", kernel=GUESTS / "hello", memory=16)
    grub = write_config("grub", kernel="/root/grub-x86_64-xen.bin", memory=16)
    measure("boot_xl", "ours", lambda: time_to_text("hello", hello, HELLO))
    measure("boot_xl", "anchor", lambda: time_to_text("grub", grub, b"\n"))


def min_memory():
    """The least `memory=` in which hello comes to its first line."""
    for memory in range(1, 64):
        config = write_config("hello", kernel=GUESTS / "hello", memory=memory)
        if time_to_text("hello", config, HELLO) is not None:
            return memory
    sys.exit("hello runs in no memory below 64 MiB")


def time_to_text(name, config, text):
    """Milliseconds from the start of `xl create` until a text has reached the guest's log in dom0; None when `xl create`
    fails or the text does not come. The guest is gone when this returns."""
    log = CONSOLES / f"guest-{name}.log"
    before = log.stat().st_size if log.exists() else 0
    changes = watch_consoles()
    quiet = os.open("/dev/null", os.O_WRONLY)
    redirect = [(os.POSIX_SPAWN_DUP2, quiet, 1), (os.POSIX_SPAWN_DUP2, quiet, 2)]
    began = time.monotonic_ns()
    xl = os.posix_spawn("/usr/sbin/xl", ["xl", "create", "-q", config], os.environ, file_actions=redirect)
    now = began
    while not (log.exists() and text in log.read_bytes()[before:]):
        ready, _, _ = select.select([changes], [], [], 2)
        now = time.monotonic_ns()
        if not ready:
            now = None
            break
        os.read(changes, 4096)
    os.close(changes)
    os.close(quiet)
    os.waitpid(xl, 0)
    destroy(name)
    return now and (now - began) / 1e6


# Network


def measure_network(rows):
    linux = write_config(
        "linux",
        kernel="/root/vmlinux",
        ramdisk="/root/linux.cpio",
        memory=256,
        vif=["bridge=xenbr0"],
        extra=f"console=hvc0 quiet address={LINUX_ADDRESS}/24",
    )
    with_guest("linux", linux, "linux: ready", lambda: measure_rows(rows, "anchor", LINUX_ADDRESS))
    for guest, address, ready in [
        ("httpd", "10.0.0.2", "httpd on"),
        ("iperf3", "10.0.0.4", "iperf3 server on"),
    ]:
        ours = [row for row in rows if NETWORK[row][1] == guest]
        if ours:
            config = GUESTS / f"{guest}.cfg"
            with_guest(guest, config, ready, lambda: measure_rows(ours, "ours", address))


def measure_rows(rows, side, address):
    for row in rows:
        measure(row, side, lambda: NETWORK[row][0](address))


def http(address):
    """Requests per second: 1 KiB page, keep-alive, 16 connections."""
    requests = 5000
    report = output("ab", "-q", "-k", "-c", "16", "-n", str(requests), f"http://{address}/1k.txt")
    for line in [f"Complete requests:      {requests}", "Failed requests:        0", "Document Length:        1024 bytes"]:
        if line not in report:
            sys.exit(f"ab does not say {line!r}:\n{report}")
    return float(re.search(r"Requests per second: +([0-9.]+)", report)[1])


def ping(address):
    """Median of 50 round trips, 10 ms apart, in milliseconds."""
    report = output("ping", "-c", "50", "-i", "0.01", address)
    times = [float(time) for time in re.findall(r"time=([0-9.]+) ms", report)]
    if len(times) != 50:
        sys.exit(f"{50 - len(times)} pings lost:\n{report}")
    return statistics.median(times)


def tcp_in(address):
    """Gbit/s of 128 MiB from dom0 to the guest, as received there."""
    return iperf3(address)


def tcp_out(address):
    """Gbit/s of 128 MiB from the guest to dom0, as received here."""
    return iperf3(address, "--reverse")


def iperf3(address, *options):
    # With --json an error is a member of the report. A server that has not ended the test before
    # says "busy".
    error = "busy"
    while "busy" in error:
        time.sleep(0.1)
        report = json.loads(output("iperf3", "--json", "--bytes", "128M", *options, "--client", address))
        error = report.get("error", "")
    if error:
        sys.exit(f"iperf3: {error}")
    return report["end"]["sum_received"]["bits_per_second"] / 1e9


# The function that measures each row, and the guest of ours that is its subject.
NETWORK = {
    "http": (http, "httpd"),
    "ping": (ping, "httpd"),
    "tcp_in": (tcp_in, "iperf3"),
    "tcp_out": (tcp_out, "iperf3"),
}


main()
