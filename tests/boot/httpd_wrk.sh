#!/bin/sh
# wrk's 64 connections for 5 s: no error of any kind.
. /run/zooid/lib.sh
start "httpd on"
wrk -t 1 -c 64 -d 5s http://10.0.0.2/1k.txt >report || fail "wrk: $(cat report)"
cat report
grep -q 'Requests/sec: *[1-9]' report || fail "no requests"
grep -E 'Socket errors|Non-2xx' report && fail "errors"
still_serves /
