#!/bin/sh
# Connections that the guest ends, in each of the ways there are (guests/net_server).
. /run/zooid/lib.sh
start "listening"
check net_closing
wait_end 0
grep -q 'Test result: SUCCESS' "$(console)" || fail "the guest is not content"
