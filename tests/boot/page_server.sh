#!/bin/sh
# The library that renders a server's pages is replaced back and forth 100 times under the load of 50 connections: no request is lost, and no page is a mixture.
. /run/zooid/lib.sh
start "pages on port 80"
check page_client 10.0.0.2 100
for line in "library libpage.so.1: 1.0.0 -> 2.0.0" "library libpage.so.1: 2.0.0 -> 1.0.0"; do
    [ "$(grep -c "$line" "$(console)")" -eq 60 ] || fail "not 60 times: $line"
done
