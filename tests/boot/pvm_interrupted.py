"""Interrupts `pvm run` at ever later moments of its life, by each signal that asks it to end: no domain is left paused."""
import json
import os
import signal
import subprocess
import sys
import time

STEP = 0.08
MOMENTS = 14

# Those that a shell starts in the background ignore it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ended = {}
for number in range(MOMENTS):
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        name = f"{sent.name}-{number}"
        words = ["pvm", "run", "--memory", "5", "--name", name, sys.argv[1]]
        run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        time.sleep(number * STEP)
        # As a terminal does: everybody in its group gets it.
        try:
            os.killpg(run.pid, sent)
        except ProcessLookupError:
            pass
        said = run.communicate()[1]
        if run.returncode not in (0, -sent):
            sys.exit(f"{name}: status {run.returncode}: {said}")
        ended.setdefault(run.returncode, []).append(name)
listed = json.loads(subprocess.check_output(["xl", "list", "-l"]))
domains = {domain["config"]["c_info"].get("name") for domain in listed if domain["domid"] != 0}
pvms = {pvm["name"]: pvm for pvm in json.loads(subprocess.check_output(["pvm", "list", "--json"]))}
for name in domains:
    if name not in pvms:
        sys.exit(f"{name} is a domain and no pVM")
for name, pvm in pvms.items():
    if pvm["state"] != "running":
        sys.exit(f"{name} is {pvm['state']}")
missing = [name for name in ended.get(0, []) if name not in pvms]
if missing:
    sys.exit(f"said to run, and they do not: {missing}")
interrupted = sum(len(names) for status, names in ended.items() if status)
print(f"{interrupted} of {3 * MOMENTS} were interrupted, {len(pvms)} pVMs run")
if interrupted == 0:
    sys.exit("none was interrupted")
