#!/bin/sh
# A family that asks for shared memory without end, from four pVMs: another family forks and shares meanwhile, dom0 answers, and afterwards nothing
# is left.
. /run/zooid/lib.sh

# neighbour GUEST WORDS: a family that has to get through.
neighbour() {
    printf 'name="neighbour"\nkernel="/opt/zooid/guests/%s"\nmemory=32\nextra="-- %s"\n' "$1" "$2" >neighbour.cfg
    : >"$(console neighbour)"
    xl create -q neighbour.cfg || fail "xl create neighbour"
    wait_until 60 grep -q 'Test result: SUCCESS' "$(console neighbour)"
}

# stormy: whether all four are at it.
stormy() {
    [ "$(cat /var/log/xen/console/guest-"$NAME"*.log | grep -c 'storm begins')" = 4 ]
}

# round: one storm, from its start to its end.
round() {
    rm -f /var/log/xen/console/guest-"$NAME"*
    kill -HUP "$(cat /run/xenconsoled.pid)"
    xl create -q "$CFG" || fail "xl create"
    wait_until 60 stormy
    neighbour fork "rate 5"
    neighbour ipc names
    pvm list >listed || fail "pvmd does not answer"
    [ "$(grep -c "$NAME" listed)" -ge 4 ] || fail "the storm is over: $(cat listed)"
    pvm kill --family "$NAME" || fail "pvm kill --family"
    wait_until 60 gone
}

leaves_nothing round
