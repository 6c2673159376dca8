#!/bin/sh
# A transfer survives 2 s in which dom0's end of the interface is down.
. /run/zooid/lib.sh
start "echo on"
vif=vif$(xl domid "$NAME").0
head -c 8388608 /dev/urandom >sent
timeout 60 nc -N 10.0.0.3 7 <sent >received &
transfer=$!
wait_until 10 test -s received
ip link set "$vif" down
cmp -s sent received && fail "the transfer was over before"
sleep 2
ip link set "$vif" up
wait "$transfer" || fail "nc"
cmp sent received || fail "received something else"
