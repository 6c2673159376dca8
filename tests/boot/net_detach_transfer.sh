#!/bin/sh
# A transfer goes on where it was when its interface is taken away and given back in its midst.
. /run/zooid/lib.sh
sed -i "s/^vif.*/vif = ['mac=00:16:3e:00:00:03,bridge=xenbr0']/" "$CFG"
start "echo on"
head -c 25165824 /dev/urandom >sent
timeout 60 nc -N 10.0.0.3 7 <sent >received &
transfer=$!
wait_until 10 test -s received
xl network-detach "$NAME" 0 || fail "detach"
cmp -s sent received && fail "the transfer was over before"
sleep 1
xl network-attach "$NAME" mac=00:16:3e:00:00:03 bridge=xenbr0 || fail "attach"
wait "$transfer" || fail "nc"
cmp sent received || fail "received something else"
