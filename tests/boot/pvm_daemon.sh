#!/bin/sh
# The daemon comes back after a kill, and after a stop, and finds its families.
. /run/zooid/lib.sh

family() {
    pvm list --json | python3 -S -c 'import json, sys
print(sorted((pvm["id"], pvm["parent"], pvm["root"], pvm["name"], pvm["kind"], pvm["can_fork"]) for pvm in json.load(sys.stdin)))'
}

root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'
child=$(pvm fork "$root") || fail "pvm fork"
grandchild=$(pvm fork "$child") || fail "pvm fork of a child"
before=$(family)

no_pvmd
start-pvmd || fail "no new daemon after a kill"
[ "$(family)" = "$before" ] || fail "after a kill: before $before, after $(family)"
fourth=$(pvm fork "$root") || fail "pvm fork after a kill: status $?"
pvm kill "$grandchild" || fail "pvm kill after a kill: status $?"
[ "$(pvm wait "$grandchild")" = "$grandchild: signal 9" ] || fail "wait after a kill"
before=$(family)

# A daemon that is asked to stop leaves no prepared domains, and the pVMs as they are.
kill -TERM "$(pidof pvmd)"
wait_until 15 sh -c '! pidof pvmd'
[ ! -e /run/zooid/pvmd.sock ] || fail "a socket was left"
[ "$(xl list | wc -l)" = 6 ] || fail "not dom0, the root and three children: $(xl list)"
start-pvmd || fail "no new daemon after a stop"
[ "$(family)" = "$before" ] || fail "after a stop: before $before, after $(family)"
pvm fork "$fourth" >/dev/null || fail "pvm fork after a stop: status $?"

# A pVM that ended while there was no daemon.
no_pvmd
xl destroy "$(xl list | awk -v id="$fourth" '$1 ~ id { print $2 }')" || fail "xl destroy"
start-pvmd || fail "no new daemon after an end"
refuses 120 "there is no pVM $fourth" pvm inspect "$fourth"
pvm kill --family "$root" || fail "pvm kill --family"
wait_until 30 gone
