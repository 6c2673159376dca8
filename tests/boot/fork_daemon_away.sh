#!/bin/sh
# The daemon is stopped, and then killed in the middle of a COMMIT and away for longer than a guest
# waits: parent and children do not see each other's writes, the parent's fork is an error only
# where nobody answered, and it forks on when there is a daemon again.
. /run/zooid/lib.sh

# consoles: what all pVMs of the case have printed.
consoles() {
    cat /var/log/xen/console/guest-*.log
}

no_pvmd
rm -f stop
pvmd >>pvmd.log 2>&1 &
wait_until 15 pvm stats
begin apart
wait_until 30 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'

# Stopped: it answers late, and is waited for.
kill -STOP "$(pidof pvmd)"
sleep 15
kill -CONT "$(pidof pvmd)"
if grep -q 'no daemon' "$(console)"; then fail "a daemon that is stopped is there"; fi
no_pvmd

# A child runs, and its parent has no answer.
pvmd --die-at Go:after >>pvmd.log 2>&1
grep -q 'dying here' pvmd.log || fail "it did not come to the point"
wait_until 30 grep -q 'no daemon' "$(console)"
sleep 5
start-pvmd || fail "pvmd"
xenstore-write "/local/domain/$(xl domid "$NAME")/data/stop" 1
succeeds "apart" 120
consoles | grep -q 'the child is right' || fail "no child: $(consoles)"
if consoles | grep -q 'the child sees'; then fail "$(consoles)"; fi
