#!/bin/sh
# Forks from outside while threads of the guest fork and ask pvmd for other things: each gives its child, all of whose threads go on.
. /run/zooid/lib.sh

xl create -q "$CFG" || fail "xl create"
wait_console "at work"
forked=0
while [ "$forked" -lt 6 ]; do
    pvm fork "$NAME" >>forked || fail "pvm fork: status $?: $(cat "$(console)")"
    forked=$((forked + 1))
done
[ "$(sort -u forked | wc -l)" = 6 ] || fail "the same child twice: $(cat forked)"
xenstore-write "/local/domain/$(xl domid "$NAME")/data/stop" 1
succeeds "requests and forks" 120
grep -q 'forks, 6 from outside' "$(console)" || fail "$(cat "$(console)")"
