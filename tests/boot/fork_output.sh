#!/bin/sh
# Children that end before xenconsoled knows them: what they have printed is in their logs, once, and of those that print nothing no log is left.
. /run/zooid/lib.sh

logs=/var/log/xen/console/guest-"$NAME"-
rm -f "$logs"*.log
begin output
succeeds output
[ "$(cat "$logs"*.log | grep -c 'child [0-7] prints, and ends')" = 8 ] || fail "$(cat "$logs"*.log)"
grep -h 'of a long text' "$logs"*.log | tr -d '\r' >long
i=0
while [ $i -lt 200 ]; do
    echo "line $i of a long text"
    i=$((i + 1))
done | cmp - long || fail "$(cat long)"
[ "$(ls "$logs"*.log | wc -l)" = 9 ] || fail "$(ls "$logs"*.log)"
rm -f "$logs"*.log
begin "rate 20"
succeeds "rate 20"
wait_until 30 gone
! ls "$logs"*.log || fail "logs of children that print nothing"
