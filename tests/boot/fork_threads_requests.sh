#!/bin/sh
# Forks from outside while threads of the guest fork and ask pvmd for other things: each gives its
# child, all of whose threads go on. Memory that changes all the while may be a reason to try again,
# and no other.
. /run/zooid/lib.sh

xl create -q "$CFG" || fail "xl create"
wait_console "at work"
: >forked
forked=0
while [ "$forked" -lt 6 ]; do
    until pvm fork "$NAME" >>forked 2>refused; do
        grep -qE 'too fast|Try again' refused || fail "pvm fork: $(cat refused) $(tail -n 3 "$(console)")"
        cat refused
    done
    forked=$((forked + 1))
    if grep -H 'Test result' /var/log/xen/console/guest-"$NAME"-*.log; then fail "a child"; fi
done
[ "$(sort -u forked | wc -l)" = 6 ] || fail "the same child twice: $(cat forked)"
xenstore-write "/local/domain/$(xl domid "$NAME")/data/stop" 1
wait_until 120 grep -q 'Test result' "$(console)"
grep -q 'forks, 6 from outside' "$(console)" || fail "$(tail -n 5 "$(console)")"
grep -q 'Test result: SUCCESS' "$(console)" || fail "$(tail -n 5 "$(console)")"
wait_until 30 gone
