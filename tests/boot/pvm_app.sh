#!/bin/sh
# `pvm run --app`: applications that are shared objects, each in a child of one empty pVM.
. /run/zooid/lib.sh

# app STATUS LIBRARY ARGUMENT...: runs it, attached.
app() {
    expected=$1
    library=$2
    shift 2
    pvm run --attach --app "$library" "$CFG" -- "$@" >"$library.out" 2>&1
    status=$?
    [ "$status" = "$expected" ] || fail "$library: status $status, not $expected: $(cat "$library.out")"
}

# said LIBRARY: what it has said, in one line.
said() {
    tr -d '\r' <"$1.out" | paste -s -d ' '
}

# The first one starts the empty pVM; what an application leaves is nowhere in the memory of the next.
app 0 libsecret.so
said libsecret.so | grep -qE '^secret: left in [0-9]{3,} blocks$' || fail "$(said libsecret.so)"
for _ in 1 2 3; do
    app 0 libsearch.so
    said libsearch.so | grep -qE '^search: 0 of [0-9]{4,} KiB$' || fail "$(said libsearch.so)"
done

app 3 libapp.so one 'two  words'
[ "$(said libapp.so)" = "app: libapp.so app: one app: two  words app: 3 at the end app: destroyed zooid: exit code 3" ] || fail "$(said libapp.so)"
app 0 librust_app.so 2.5 -1 pears 0.125
[ "$(said librust_app.so)" = "rust: -1 rust: 0.125 rust: 2.5 rust: pears rust: 1.625 is the sum of 4" ] || fail "$(said librust_app.so)"
app 1 libnothing.so
grep -q 'libnothing.so: there is no such library' libnothing.so.out || fail "$(said libnothing.so)"
app 1 libruntime.so
grep -q 'undefined symbol: main' libruntime.so.out || fail "$(said libruntime.so)"
app 1 libunsigned.so
grep -q 'libunsigned.so: signature rule' libunsigned.so.out || fail "$(said libunsigned.so)"

# There is one empty pVM, and it only ever makes children.
pvm list --json | json "[(pvm['name'], pvm['kind']) for pvm in it] == [('$NAME', 'root')]"
id=$(pvm run --app libapp.so "$CFG") || fail "pvm run --app: status $?"
[ "$(pvm wait "$id")" = "$id: exit 1" ] || fail "the end: $(pvm wait "$id")"
pvm logs "$id" | grep -q 'app: 1 at the end' || fail "pvm logs: $(pvm logs "$id")"

# Many at once.
for number in 1 2 3 4 5 6; do
    pvm run --attach --app libapp.so "$CFG" -- "$number" >"many.$number" 2>&1 &
done
wait
for number in 1 2 3 4 5 6; do
    grep -q "^app: $number" "many.$number" && grep -q 'exit code 2' "many.$number" || fail "$number: $(cat "many.$number")"
done

# A child that is made without an application waits for one as well; another image takes none.
child=$(pvm fork "$NAME") || fail "pvm fork: status $?"
pvm inspect --json "$child" | json "it['state'] == 'running'"
pvm kill "$child" || fail "pvm kill: status $?"
printf 'name = "%s-other"\nkernel = "/opt/zooid/guests/fork"\nmemory = 16\nextra = "-- idle"\n' "$NAME" >other.cfg
refuses 123 "takes no application" pvm run --app libapp.so ./other.cfg
pvm kill --family "$NAME-other" || fail "pvm kill --family: status $?"
pvm kill --family "$NAME" || fail "pvm kill --family: status $?"
wait_until 30 gone

# Nothing stays of an empty pVM and its applications.
round() {
    for number in 1 2 3 4; do
        app 2 libapp.so "$number"
    done
    pvm kill --family "$NAME" || fail "pvm kill --family: status $?"
    wait_until 30 gone
}
round
before=$(settled)
round
[ "$(settled)" = "$before" ] || fail "not everything was given back: before $before, after $(settled)"
