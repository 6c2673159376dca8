#!/bin/sh
# `xl shutdown` ends a guest that has two busy threads.
. /run/zooid/lib.sh
start "ready"
xl shutdown "$NAME" || fail "xl shutdown"
wait_end 0
