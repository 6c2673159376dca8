#!/bin/sh
# `pvm stop`, `kill` and `wait`, and what others do to a guest: `wait` and `list --all` tell the ends apart.
. /run/zooid/lib.sh

# begin ARGUMENT: a guest that waits.
begin() {
    rm -f waited
    id=$(pvm run --name "$NAME" --memory 8 waits -- "$1") || fail "pvm run"
    pvm wait "$id" >waited 2>&1 &
    waiter=$!
}

# ended STATUS WORDS: how the guest that was begun last must have ended, for who waited and for who asks now.
ended() {
    wait $waiter
    status=$?
    [ "$status" = "$1" ] || fail "wait: status $status, not $1"
    [ "$(cat waited)" = "$id: $2" ] || fail "wait: $(cat waited)"
    [ "$(pvm wait "$id")" = "$id: $2" ] || fail "wait afterwards: $(pvm wait "$id")"
    pvm list --all | grep -q "$id .* $2 " || fail "$(pvm list --all)"
    wait_until 15 gone
}

for occupation in idle busy; do
    begin $occupation
    pvm stop "$NAME" || fail "pvm stop: status $?"
    ended 0 "exit 0"
    begin $occupation
    pvm kill "$NAME" || fail "pvm kill: status $?"
    ended 137 "signal 9"
done
begin idle
pvm kill -s TERM "$id" || fail "pvm kill -s TERM"
ended 0 "exit 0"
begin idle
xl destroy "$NAME" || fail "xl destroy"
ended 137 "destroyed"
begin idle
xl shutdown -w "$NAME" >/dev/null 2>&1 || fail "xl shutdown"
ended 0 "exit 0"
# Started by xl, which nobody has told the daemon of.
xl create -q "$CFG" "name=\"$NAME\"" || fail "xl create"
wait_until 15 pvm inspect "$NAME"
id=$(pvm inspect --json "$NAME" | python3 -S -c 'import json, sys; print(json.load(sys.stdin)["id"])')
pvm wait "$id" >waited 2>&1 &
waiter=$!
wait_console ready
pvm stop "$NAME" || fail "pvm stop of a guest of xl's"
ended 0 "exit 0"

# A paused guest obeys nobody until it goes on.
begin idle
xl pause "$NAME"
refuses 124 "has not ended within 300ms: \`pvm kill $NAME\` does not ask" pvm stop --timeout 300ms "$NAME"
xl unpause "$NAME"
ended 0 "exit 0"

