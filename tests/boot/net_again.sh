#!/bin/sh
# A guest that takes the place of another one, with its address, is reached at once.
. /run/zooid/lib.sh
for number in 1 2 3; do
    xl create -q -e "$CFG" || fail "xl create"
    wait_until 15 grep -q "httpd on" "$(console)"
    curl -sS -f -m 2 -o page http://10.0.0.2/ || fail "guest $number is not reached"
    xl destroy "$NAME"
    rm -f "$(console)"
    killall -HUP xenconsoled
done
