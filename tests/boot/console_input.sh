#!/bin/sh
# Input typed at the guest's console arrives.
. /run/zooid/lib.sh
start "ready"
check console_type "$(xenstore-read "/local/domain/$(xl domid "$NAME")/console/tty")"
wait_end 0
