#!/bin/sh
# `pvm run`: guests by name, image and configuration; their console, their arguments, their exit
# codes.
. /run/zooid/lib.sh

# ends STATUS ARGUMENT: the guest `ends`, attached.
ends() {
    pvm run --attach --name "$NAME" ends -- "$2" >"$2.out" 2>&1
    status=$?
    [ "$status" = "$1" ] || fail "$2: status $status, not $1: $(cat "$2.out")"
}

pvm run -a hello >out || fail "hello: status $?"
[ "$(tr -d '\r' <out)" = "Hello from a pVM!" ] || fail "hello printed $(cat out)"

ends 0 success
ends 3 code
ends 4 thread
ends 139 abort
grep -q "the last line" abort.out || fail "no console: $(cat abort.out)"
grep -q "pvm: $NAME ended: crash" abort.out || fail "no end: $(cat abort.out)"

# The arguments behind -- arrive unchanged.
pvm run -a --name "$NAME" arguments -- one 'two three' '"four"' '\' '' >out
grep -qF 'two three' out || fail "arguments: $(cat out)"

# A name that is taken gets a number, unless it was chosen.
first=$(pvm run "$CFG") || fail "run $CFG"
second=$(pvm run "$CFG") || fail "run $CFG again"
[ "$first" != "$second" ] || fail "two pVMs with one id"
pvm inspect --json "$NAME" | json "it['id'] == $first and it['state'] == 'running' and it['kind'] == 'root'"
pvm inspect --json "$NAME-2" | json "it['id'] == $second"
refuses 1 "is named $NAME already" pvm run --name "$NAME" "$CFG"

# An image; less memory than the configuration has.
pvm run --json --name "$NAME-image" --memory 5 /opt/zooid/guests/waits -- idle |
    json "it['name'] == '$NAME-image' and it['memory_kib'] == 5 * 1024"
grep -q ready "$(console "$NAME-image")" || fail "it has not started"
xl list | grep -q " *$(xl domid "$NAME-image") " || fail "not in xl list"

# The end of one that ends at once is not missed.
for _ in 1 2 3; do
    id=$(pvm run hello) || fail "hello"
    [ "$(pvm wait "$id")" = "$id: exit 0" ] || fail "the end of hello"
done
[ -z "$(ls /tmp)" ] || fail "left in /tmp: $(ls /tmp)"
