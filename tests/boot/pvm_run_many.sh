#!/bin/sh
# Many `pvm run` of one guest at a time: each makes one domain, with a name of its own. One that is interrupted, at whatever moment, leaves a pVM
# that runs, or nothing.
. /run/zooid/lib.sh
MANY=12

# The number of a domain that is made now; one more each time.
number() {
    xl create -q "$CFG" 'name="probe"' || fail "xl create"
    xl domid probe
    xl destroy probe
}

before=$(number)
for run in $(seq $MANY); do
    pvm run --memory 5 "$CFG" >"ran.$run" 2>&1 &
done
wait
[ "$(cat ran.* | sort -u | grep -c '^[0-9]*$')" = $MANY ] || fail "not $MANY ids: $(cat ran.*)"
[ "$(pvm list --json | python3 -S -c 'import json, sys; print(len({pvm["name"] for pvm in json.load(sys.stdin)}))')" = $MANY ] ||
    fail "names: $(pvm list)"
made=$(($(number) - before - 1))
[ $made = $MANY ] || fail "$made domains were made for $MANY pVMs"
for id in $(cat ran.*); do
    pvm kill "$id" || fail "pvm kill"
done
wait_until 60 gone

check pvm_interrupted "$CFG"
[ -z "$(ls /tmp)" ] || fail "left in /tmp: $(ls /tmp)"
for name in $(pvm list --json | python3 -S -c 'import json, sys; print(*(pvm["name"] for pvm in json.load(sys.stdin)))'); do
    pvm kill "$name" || fail "pvm kill"
done
wait_until 60 gone
