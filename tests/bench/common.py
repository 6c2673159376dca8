"""The common part of `make bench` in dom0: samples, and guests."""

import ctypes
import os
import select
import subprocess
import sys
import time
from pathlib import Path

GUESTS = Path("/opt/zooid/guests")
CONSOLES = Path("/var/log/xen/console")
SAMPLES = 5


def measure(row, side, take):
    """Takes the samples of a row, after a first one that only warms everything up."""
    take()
    values = [take() for _ in range(SAMPLES)]
    if None in values:
        sys.exit(f"{row}, {side}: a guest failed")
    record(row, side, values)


def record(row, side, values):
    """Writes samples where the build machine finds them."""
    with open("/root/out/samples", "a") as samples:
        samples.writelines(f"{row} {side} {value}\n" for value in values)
    print(f"bench: {row}, {side}: {', '.join(f'{value:.5g}' for value in values)}", flush=True)


def write_config(name, **settings):
    """A configuration for xl; what it does not name is as xl has it."""
    path = f"/root/{name}.cfg"
    settings = {"name": name, **settings}
    Path(path).write_text("".join(f"{key} = {value if isinstance(value, (int, list)) else repr(str(value))}\n"
                                  for key, value in settings.items()))
    return path


def with_guest(name, config, ready, action):
    """Starts a guest, waits for a text on its console, acts, and destroys it."""
    print(f"bench: starting {name}", flush=True)
    output("xl", "create", "-q", config)
    wait_for(name, ready, 60)
    action()
    destroy(name)


def run_to_its_end(name, seconds, **settings):
    """Runs a test guest with this configuration; what it has said."""
    config = write_config(name, tsc_mode="native", **settings)
    print(f"bench: starting {name}", flush=True)
    output("xl", "create", "-q", config)
    said = wait_for(name, "Test result: ", seconds)
    if "Test result: SUCCESS" not in said:
        sys.exit(f"{name} has failed:\n{said}")
    until_alone()
    return said


def console(name):
    """The console of a guest."""
    log = CONSOLES / f"guest-{name}.log"
    return log.read_text(errors="replace") if log.exists() else ""


def wait_for(name, text, seconds):
    """Waits until a guest has said something, without waking up before anybody says anything; all that it has said."""
    limit = time.monotonic() + seconds
    changes = watch_consoles()
    while text not in (said := console(name)):
        if not select.select([changes], [], [], max(0, limit - time.monotonic()))[0]:
            sys.exit(f"{name} does not say {text!r} within {seconds} s:\n{said[-2000:]}")
        os.read(changes, 4096)
    os.close(changes)
    return said


def watch_consoles():
    """An inotify descriptor that becomes readable when a guest has said something (inotify(7))."""
    in_modify, in_create = 0x2, 0x100
    libc = ctypes.CDLL(None)
    descriptor = libc.inotify_init()
    libc.inotify_add_watch(descriptor, bytes(CONSOLES), in_modify | in_create)
    return descriptor


def destroy(name):
    """Destroys a guest, if it has not ended by itself, and waits until it is gone."""
    subprocess.run(["xl", "destroy", name], stderr=subprocess.DEVNULL)
    until_alone()


def until_alone():
    """Waits until there is no domain but dom0."""
    while len(output("xl", "list").splitlines()) > 2:
        time.sleep(0.02)


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}:\n{done.stdout}")
    return done.stdout
