#!/bin/sh
# The guest's wall clock is dom0's.
. /run/zooid/lib.sh
before=$(date +%s)
start "unix time"
after=$(date +%s)
time=$(sed -n 's/unix time \([0-9]*\).*/\1/p' "$(console)")
[ "$time" -ge $((before - 1)) ] || fail "the guest is behind: $time, here it is $before"
[ "$time" -le $((after + 1)) ] || fail "the guest is ahead: $time, here it is $after"
wait_end 0
