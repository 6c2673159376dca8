#!/bin/sh
# A guest that takes another one's place and address is reached at once, though dom0 remembers the Ethernet address of the
# other one: it announces itself. Another guest keeps the bridge up, for a bridge without ports forgets.
. /run/zooid/lib.sh
xl create -q -e /opt/zooid/guests/echo.cfg || fail "xl create echo"
wait_until 15 ping -q -c 1 -W 1 10.0.0.3
for mac in 00:16:3e:00:00:01 00:16:3e:00:00:02 00:16:3e:00:00:03; do
    sed -i "s/^vif.*/vif = ['mac=$mac,bridge=xenbr0']/" "$CFG"
    xl create -q -e "$CFG" || fail "xl create"
    wait_until 15 grep -q "^httpd on" "$(console)"
    curl -sS -f -m 2 -o page http://10.0.0.2/ || fail "$mac is not reached"
    xl destroy "$NAME"
    : >"$(console)"
done
