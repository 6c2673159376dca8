#!/bin/sh
# A request to suspend is refused with a line, `xl save` fails, and the guest goes on.
. /run/zooid/lib.sh
start "tick 2"
request=/local/domain/$(xl domid "$NAME")/control/shutdown
xenstore-write "$request" suspend
wait_console "suspend is not supported"
[ -z "$(xenstore-read "$request")" ] || fail "the request was not acknowledged"
tick=$(grep -c tick "$(console)")
wait_console "tick $((tick + 3))"
xl save "$NAME" saved && fail "xl save"
tick=$(grep -c tick "$(console)")
wait_console "tick $((tick + 3))"
# An unknown request is ignored with a warning.
xenstore-write "$request" dance
wait_console "unknown request in control/shutdown"
xl shutdown "$NAME" || fail "xl shutdown"
wait_end 0
