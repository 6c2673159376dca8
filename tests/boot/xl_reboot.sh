#!/bin/sh
# `xl reboot` ends the guest with the reason reboot, and xl starts it again.
. /run/zooid/lib.sh

boots() {
    [ "$(grep -c ready "$(console)")" = "$1" ]
}

# With xl's monitor process, which is what restarts it.
xl create -q "$CFG" || fail "xl create"
wait_until 15 boots 1
first=$(xl domid "$NAME")
xl reboot "$NAME" || fail "xl reboot"
wait_until 15 boots 2
wait_until 15 xl domid "$NAME"
[ "$(xl domid "$NAME")" != "$first" ] || fail "it is still domain $first"
xl shutdown -w "$NAME" || fail "xl shutdown"
