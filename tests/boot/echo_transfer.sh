#!/bin/sh
# 8 MiB through the guest and back, in both directions at once, with two clients.
. /run/zooid/lib.sh
start "echo on"
head -c 8388608 /dev/urandom >sent
timeout 60 nc -N 10.0.0.3 7 <sent >received || fail "nc"
cmp sent received || fail "nc received something else"
timeout 60 socat -t 30 STDIO TCP:10.0.0.3:7 <sent >received || fail "socat"
cmp sent received || fail "socat received something else"
