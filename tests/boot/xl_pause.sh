#!/bin/sh
# A paused guest stands still and then goes on.
. /run/zooid/lib.sh
start "tick 2"
xl pause "$NAME" || fail "xl pause"
# The input in the console's ring arrives now.
sleep 0.2
before=$(wc -c <"$(console)")
sleep 1
[ "$(wc -c <"$(console)")" = "$before" ] || fail "it printed while it was paused"
tick=$(grep -c tick "$(console)")
xl unpause "$NAME" || fail "xl unpause"
wait_console "tick $((tick + 3))"
