#!/bin/sh
# A request to suspend, as `xl save` makes it, is refused with a line, and the guest goes on.
. /run/zooid/lib.sh
start "tick 2"
request=/local/domain/$(xl domid "$NAME")/control/shutdown
xenstore-write "$request" suspend
wait_console "suspend is not supported"
[ -z "$(xenstore-read "$request")" ] || fail "the request was not acknowledged"
tick=$(grep -c tick "$(console)")
wait_console "tick $((tick + 3))"
# An unknown one is ignored with a warning.
xenstore-write "$request" dance
wait_console "unknown request in control/shutdown"
xl shutdown "$NAME" || fail "xl shutdown"
wait_end 0
