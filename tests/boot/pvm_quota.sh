#!/bin/sh
# A family that has as many pVMs as it may gets EAGAIN, and its host stays usable.
. /run/zooid/lib.sh
no_pvmd
echo 'family-pvms = 5' >pvmd.toml
start-pvmd --config pvmd.toml || fail "pvmd"

root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'
made=0
while pvm fork "$root" >/dev/null 2>refusal; do
    made=$((made + 1))
    [ "$made" -lt 8 ] || fail "no end to forks"
done
refuses 123 "(EAGAIN): a quota, or too fast; see pvmd.toml" pvm fork "$root"
[ "$(xl list | wc -l)" -le 7 ] || fail "more than five and dom0: $(xl list)"
pvm stats --json | json "dict(it['refused'])[11] >= 2"
pvm events | grep -q "$root $NAME was refused a fork" || fail "$(pvm events)"
other=$(pvm run --name "$NAME-other" "$CFG") || fail "another family"
pvm kill "$(pvm list --json | python3 -S -c 'import json, sys
print(next(pvm["id"] for pvm in json.load(sys.stdin) if pvm["parent"] == int(sys.argv[1])))' "$root")" || fail "pvm kill"
wait_until 15 pvm fork "$root"
pvm kill --family "$root" "$other" || fail "pvm kill --family"
wait_until 30 gone
no_pvmd
