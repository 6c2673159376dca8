#!/bin/sh
# `xl shutdown` ends an idle guest with the reason poweroff.
. /run/zooid/lib.sh
start "ready"
xl shutdown "$NAME" || fail "xl shutdown"
wait_end 0
