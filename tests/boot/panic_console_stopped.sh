#!/bin/sh
# A panic ends the domain also when nobody reads its console and the ring is full.
. /run/zooid/lib.sh
xl create -q -e -p "$CFG" || fail "xl create"
daemon=$(cat /run/xenconsoled.pid)
trap 'kill -CONT "$daemon"' EXIT
kill -STOP "$daemon"
xl unpause "$NAME" || fail "xl unpause"
wait_end 3
