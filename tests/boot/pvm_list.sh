#!/bin/sh
# `pvm list`, `inspect`, `logs`, `events`, `stats` tell of guests however they were started.
. /run/zooid/lib.sh

# Whoever asks first: the daemon is told of a guest without the fork component by `pvm run`.
id=$(pvm run "$CFG") || fail "pvm run"
domid=$(xl domid "$NAME")
pvm events -f --json >events &
watcher=$!
pvm list --json | json "[(pvm['id'], pvm['domid'], pvm['state']) for pvm in it] == [($id, $domid, 'running')]"
pvm list | awk -v id="$id" -v name="$NAME" 'NR == 2 && $1 == id && $3 == name { found = 1 } END { exit !found }' ||
    fail "$(pvm list)"
pvm list --tree | grep -q "^$NAME $id running, 8 MiB$" || fail "$(pvm list --tree)"

# By name, by id, by domid.
for target in "$NAME" "$id" "$domid"; do
    pvm inspect "$target" --json | json "it['id'] == $id and it['memory_kib'] == 8192 and not it['can_fork']"
done
pvm inspect "$NAME" | grep -q '^state *running$' || fail "$(pvm inspect "$NAME")"
xl pause "$NAME" || fail "xl pause"
pvm inspect "$NAME" --json | json "it['state'] == 'paused'"
xl unpause "$NAME"

wait_console "tick 3"
pvm logs "$NAME" | grep -q "^tick 0" || fail "$(pvm logs "$NAME")"
pvm logs --json -n 1 "$NAME" | json "it['line'].startswith('tick ')"
[ "$(pvm logs -n 0 "$NAME")" = "" ] || fail "logs -n 0"
pvm logs -n 1 "$NAME" | grep -q "^tick [0-9]" || fail "$(pvm logs -n 1 "$NAME")"
# Followed to the end, then it ends.
pvm logs -f "$id" >followed &
follower=$!
wait_until 15 grep -q "tick 9" followed
pvm stop "$NAME" || fail "pvm stop"
wait $follower || fail "logs -f: status $?"
cmp -s followed "$(console)" || fail "logs -f and the log differ"

pvm list --json | json "it == []"
pvm list --all --json | json "it[-1]['id'] == $id and it[-1]['ended']['status'] == {'kind': 'exit', 'code': 0}"
pvm list --all | grep -q "$id .* exit 0 " || fail "$(pvm list --all)"
pvm logs "$NAME" | grep -q "^tick 0" || fail "no logs after the end"
wait_until 15 grep -q '"event":"ended"' events
kill $watcher
[ "$(grep -c "\"id\":$id," events)" = 2 ] || fail "events: $(cat events)"
pvm events | grep -q " $id $NAME ended: exit 0$" || fail "$(pvm events)"
pvm stats --json | json "it['ended'] >= 1 and it['alive'] == 0 and it['pool'] == 0"
pvm stats | grep -q "^STEP" || fail "$(pvm stats)"
