#!/bin/sh
# Objects that relatives have shared leave nothing behind, however they end: free pages, domains
# (zombies and memory owners included), dom0's event channels, grants and xenstore nodes are as
# before.
. /run/zooid/lib.sh

# round TEST: one life of the guest.
round() {
    begin "$1"
    succeeds "$1"
}

all() {
    for test in channels pipe_atomic pipe_ends generations memory names queue_many siblings signals_end; do
        round "$test"
    done
}

# The rounds that need most come first.
round generations
leaves_nothing all

# A name that was not removed goes with its family; until then it is in the list, and can be
# removed.
begin named_idle
wait_console idle
pvm ipc list | grep left-behind || fail "no name in the list"
pvm ipc list --json | python3 -S -c 'import json, sys; sys.exit(not any(o["name"] == "left-behind" for o in json.load(sys.stdin)))' ||
    fail "no name in the JSON list"
pvm ipc rm "$NAME" no-such-name && fail "a name that there is not was removed"
pvm ipc rm "$NAME" left-behind || fail "pvm ipc rm"
pvm ipc list | grep left-behind && fail "the name is still there"
pvm kill --family "$NAME"
wait_until 30 gone
after=$(settled)
# shellcheck disable=SC2154 # leaves_nothing has set it.
[ "$before" = "$after" ] || fail "not everything was given back after kill --family: $after"
