#!/bin/sh
# TCP gets everything across where packets are lost, late, twice and out of order, in both directions.
. /run/zooid/lib.sh
start "echo on"
vif=vif$(xl domid "$NAME").0
tc qdisc add dev "$vif" root netem delay 2ms 1ms loss 1% duplicate 1% reorder 20% || fail "netem"
tc qdisc add dev "$vif" ingress || fail "ingress"
tc filter add dev "$vif" ingress matchall action ok random netrand drop 100 || fail "gact"
head -c 2097152 /dev/urandom >sent
timeout 100 nc -N 10.0.0.3 7 <sent >received || fail "nc"
cmp sent received || fail "received something else"
tc -s qdisc show dev "$vif" >report
[ "$(grep -c 'dropped [1-9]' report)" = 2 ] || fail "nothing was lost in one direction: $(cat report)"
