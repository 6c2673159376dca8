#!/bin/sh
# 10 or 40 domains, created and destroyed, leave nothing behind: free pages, domains (zombies included), dom0's event channels, mapped
# grants and xenstore nodes are exactly as before. One guest has no device and may have ended by itself when it is
# destroyed, the other serves on its network interface.
. /run/zooid/lib.sh

create_and_destroy() {
    xl create -q -e "$CFG" || fail "xl create $NAME"
    : >"$(console httpd)"
    xl create -q -e /opt/zooid/guests/httpd.cfg || fail "xl create httpd"
    wait_console "httpd on" httpd
    xl destroy "$NAME" || fail "xl destroy $NAME"
    xl destroy httpd || fail "xl destroy httpd"
}

rounds() {
    for _ in $(seq "$1"); do
        create_and_destroy
    done
}

rounds 3
before=$(settled)
rounds "$(at_scale 5 20)"
after=$(settled)
echo "before $before"
echo "after  $after"
[ "$before" = "$after" ] || fail "not everything was given back"
