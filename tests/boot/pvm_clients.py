"""Many clients of pvmd at a time, most of which ask nothing, or wait.

pvm_clients.py ID: of a pVM that runs. It is killed.
"""

import json
import socket
import subprocess
import sys
import time

PVM = int(sys.argv[1])
SOCKET = "/run/zooid/pvmd.sock"


def fail(why):
    print("FAILED: " + why)
    sys.exit(1)


def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(SOCKET)
    return client


def ask(client, request):
    client.sendall(json.dumps({"version": 1, "request": request}).encode() + b"\n")


def line(client):
    return client.makefile().readline()


def pvm(*words):
    done = subprocess.run(("pvm",) + words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    if done.returncode != 0:
        fail("pvm %s: status %d: %s" % (" ".join(words), done.returncode, done.stdout))
    return done.stdout


# One that says no more, but reads.
half = connect()
ask(half, {"wait": {"pvm": PVM}})
half.shutdown(socket.SHUT_WR)

# Those who ask nothing, or half a line, give way.
idle = [connect() for _ in range(200)]
for client in idle[100:]:
    try:
        client.sendall(b'{"version"')
    except OSError:
        pass
pvm("list")
if json.loads(line(idle[0])).get("error", {}).get("kind") != "idle":
    fail("the first idle client is not told")

# Those who wait take no place of those who ask.
waiting, steady = [], connect()
for _ in range(150):
    waiting.append(connect())
    ask(waiting[-1], {"wait": {"pvm": PVM}})
    # A connection whose request the daemon has not read yet is idle, and could give way.
    ask(steady, "version")
    if "answer" not in json.loads(line(steady)):
        fail("a client that asks is not answered")
pvm("inspect", str(PVM))
# The daemon looks after its clients each second.
time.sleep(3)
pvm("kill", str(PVM))
for client in [half] + waiting:
    answer = json.loads(line(client))
    if answer.get("answer", {}).get("exit_code") != 137:
        fail("the end of the pVM: %s" % answer)
