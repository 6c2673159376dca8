#!/bin/sh
# A guest that forks without end, as its children do: it gets EAGAIN at its family's quota, dom0 answers meanwhile, another family forks, and
# one command ends it all.
. /run/zooid/lib.sh

bombs() {
    pvm list --json | python3 -S -c '
import json, sys
print(sum(pvm["name"].startswith("'"$NAME"'") for pvm in json.load(sys.stdin)))'
}

# round: one bomb, from its start to its end.
round() {
    rm -f "$(console)"
    kill -HUP "$(cat /run/xenconsoled.pid)"
    xl create -q "$CFG" || fail "xl create"
    wait_until 60 grep -q 'refused: EAGAIN' "$(console)"
    [ "$(bombs)" -le 24 ] || fail "$(bombs) pVMs in a family of at most 24"
    # dom0 works: both tools answer, and others fork.
    xl list >/dev/null || fail "xl list"
    printf 'name="neighbour"\nkernel="/opt/zooid/guests/fork"\nmemory=8\nextra="-- rate 5"\n' >neighbour.cfg
    : >"$(console neighbour)"
    xl create -q neighbour.cfg || fail "xl create neighbour"
    wait_until 60 grep -q 'Test result: SUCCESS' "$(console neighbour)"
    pvm kill --family "$NAME" || fail "pvm kill --family"
    wait_until 60 gone
}

no_pvmd
start-pvmd --family-pvms 24 || fail "pvmd"
leaves_nothing round
no_pvmd
start-pvmd || fail "pvmd"
