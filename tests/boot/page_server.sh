#!/bin/sh
# The library that renders a server's pages is replaced back and forth 20 or 110 times under the load of 15 or 50 connections: no request is lost, and no page is a mixture.
. /run/zooid/lib.sh
updates=$(at_scale 10 100)
start "pages on port 80"
check page_client 10.0.0.2 "$(at_scale 15 50)" "$updates"
for line in "library libpage.so.1: 1.0.0 -> 2.0.0" "library libpage.so.1: 2.0.0 -> 1.0.0"; do
    [ "$(grep -c "$line" "$(console)")" -eq $(((10 + updates) / 2)) ] || fail "not as often: $line"
done
