#!/bin/sh
# A child without a device says so when it needs the network, one that gets a device without an address, too; the parent goes on.
. /run/zooid/lib.sh
start "serving on"
# ask COMMAND: sends it to the parent; prints the answer.
ask() {
    echo "$1" | timeout 20 nc 10.0.0.2 7000 | head -n 1
}
first=$(ask fork)
second=$(ask fork)
sleep 1
check give_vif "$((second & 32767))" 00:16:3e:00:01:01
wait_console "dom0 gave this child none" "$NAME-$second"
wait_console "the guest has no network device" "$NAME-$first"
for _ in 1 2; do
    ask wait
done >ended
sort ended >sorted
printf '%s 3\n%s 3\n' "$first" "$second" | sort | cmp - sorted || fail "$(cat ended), not $first and $second with 3"
xenstore-rm "/local/domain/0/backend/vif/$((second & 32767))"
