#!/bin/sh
# Relatives wake each other by ports of their own: pvmd, which passes a wake-up on where there is no port yet, is asked a few times for each two of them
# at most, however often they wake each other.
. /run/zooid/lib.sh

# replies: how many requests were answered so far.
replies() {
    pvm stats --json | python3 -S -c 'import json, sys; print(sum(s["count"] for s in json.load(sys.stdin)["steps"] if s["step"] == "Reply"))'
}

for _ in 1 2 3; do
    before=$(replies)
    begin queue_many
    succeeds queue_many
    asked=$(($(replies) - before))
    # Seven members: 21 pairs, and the requests that make and map what they share.
    [ "$asked" -lt 60 ] || fail "pvmd was asked $asked times"
done
