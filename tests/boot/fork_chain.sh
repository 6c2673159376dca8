#!/bin/sh
# 100 or 1,000 generations, each of which forks and exits, as a daemon does that starts itself anew: the last one has what all before it wrote,
# and afterwards nothing is left.
. /run/zooid/lib.sh

says() {
    cat /var/log/xen/console/guest-"$NAME"*.log | grep -q "$1"
}

# A look at a thousand logs is work for the processor that the chain runs on: one in two seconds.
has_ended() {
    sleep 2
    says 'Test result\|chain has ended'
}

# chain GENERATIONS
chain() {
    rm -f /var/log/xen/console/guest-"$NAME"*.log
    kill -HUP "$(cat /run/xenconsoled.pid)"
    xl create -q "$CFG" "extra=\"-- chain $1\"" || fail "xl create"
    wait_until 1500 has_ended
    says "the chain has ended: $1 generations" || fail "$(cat /var/log/xen/console/guest-"$NAME"*.log | grep -h 'generation\|result' | tail -n 3)"
    wait_until 60 gone
}

chain 20
before=$(settled)
chain "$(at_scale 100 1000)"
[ "$(settled)" = "$before" ] || fail "before $before, after $(settled)"
