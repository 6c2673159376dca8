#!/bin/sh
# A guest that waits uses no time of the CPU.
. /run/zooid/lib.sh
start "ready"

# spent: CPU time of the guest so far, in tenths of a second.
spent() {
    xl list "$NAME" | awk 'NR == 2 { print $6 * 10 }'
}

# Creating it may have taken some.
before=$(spent)
sleep 3
after=$(spent)
[ "$after" -le $((before + 1)) ] || fail "it used $((after - before)) tenths of a second in 3 s"
xl list "$NAME" | grep -q -- '-b----' || fail "it is not blocked"
