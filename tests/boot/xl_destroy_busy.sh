#!/bin/sh
# A guest that is busy can be destroyed.
. /run/zooid/lib.sh
start "ready"
xl destroy "$NAME" || fail "xl destroy"
xl list "$NAME" >/dev/null 2>&1 && fail "it is still there"
true
