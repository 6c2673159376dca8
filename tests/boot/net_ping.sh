#!/bin/sh
# Echo requests of every size that fits into a packet are answered; one in fragments is not, and does no harm.
. /run/zooid/lib.sh
start "httpd on"
for size in 0 1 56 1400 1472; do
    ping -q -c 3 -i 0.2 -W 2 -s $size 10.0.0.2 | grep -F ' 0% packet loss' || fail "size $size"
done
ping -q -c 1 -W 1 -s 1473 10.0.0.2 && fail "fragments are said to be dropped"
ping -q -f -c 1000 10.0.0.2 | grep -F ' 0% packet loss' || fail "flood"
