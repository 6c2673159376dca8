#!/bin/sh
# Datagrams come back whole, or not at all.
. /run/zooid/lib.sh
start "echo on"
check echo_client datagrams
echo hello | nc -u -w 1 10.0.0.3 7 | grep -qx hello || fail "nc -u"
