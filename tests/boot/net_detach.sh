#!/bin/sh
# The interface is taken away and given back, with another Ethernet address, three times: the server goes on.
. /run/zooid/lib.sh
start "httpd on"
still_serves /
for number in 1 2 3; do
    xl network-detach "$NAME" 0 || fail "detach $number"
    curl -sS -m 1 -o page http://10.0.0.2/ && fail "served without an interface"
    xl network-attach "$NAME" bridge=xenbr0 || fail "attach $number"
    wait_until 10 curl -sS -f -m 1 -o page http://10.0.0.2/
    ping -q -c 3 -i 0.2 -W 2 10.0.0.2 | grep -F ' 0% packet loss' || fail "no answer after $number"
done
