#!/bin/sh
# The daemon is killed (SIGKILL) before and after each of the operations that a guest's life with a fork is made of (or of every third one),
# and started again: the fork makes a child that ends as it should, or is refused and succeeds later; nothing hangs, and in the end no
# domain, page, port, grant or node in xenstore is left. By both backends.
. /run/zooid/lib.sh

# die POINT: a daemon that does not end by itself before it comes to the point.
die() {
    timeout -s KILL 60 pvmd --backend "$backend" --die-at "$1" >>pvmd.log 2>&1
    died "$1"
}

no_pvmd
for backend in foreign grant; do
    : >pvmd.log
    killed=0
    life once
    life once
    before=$(settled)
    count=$(python3 -S -c 'import json; print(json.load(open("stats"))["operations"])')
    # A family that lives on beside daemons that die one behind the other; each has to remove first what the one before it had prepared,
    # with two operations.
    begin without_end
    operation=0
    while [ "$operation" -lt $((count + 2)) ]; do
        # Between two operations nothing changes outside of the daemon: by the second backend one of the two will do.
        [ "$backend" = grant ] || die "$operation"
        die "$operation:after"
        operation=$((operation + $(at_scale 3 1)))
    done
    rm -f stop
    supervise &
    xenstore-write "/local/domain/$(xl domid "$NAME")/data/stop" 1
    finish "$killed times killed"
    [ "$(settled)" = "$before" ] || fail "$backend: before $before, after $(settled)"
    # Families that begin, and end, beside a daemon that dies and one that comes after it.
    operation=0
    while [ "$operation" -lt "$count" ]; do
        life once "$operation:after"
        operation=$((operation + $(at_scale 20 7)))
    done
    [ "$(settled)" = "$before" ] || fail "$backend: short lives: before $before, after $(settled)"
    grep -c 'dying here' pvmd.log
done
rm stop
start-pvmd || fail "pvmd"
