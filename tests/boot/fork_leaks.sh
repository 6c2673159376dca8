#!/bin/sh
# 200 or 1,000 times fork, exit and wait in a row, and 30 or 100 children at once, leave nothing behind: free pages, domains (zombies included), dom0's
# event channels, mapped grants and xenstore nodes are exactly as before, with the same prepared domain waiting.
. /run/zooid/lib.sh

# round ARGUMENTS...: starts the guest with them; it must succeed within 600 s.
round() {
    begin "$*"
    succeeds "$*" 600
}

# Xen keeps what dom0 needed at most for ports and grants: so the most comes first, and a little more than is needed later. Where that was not the most after
# all, it is once; a leak is there again after the next round.
round alive "$(at_scale 40 120)"
before=$(settled)
for arguments in "rate $(at_scale 200 1000)" "alive $(at_scale 30 100)"; do
    for try in 1 2; do
        # shellcheck disable=SC2086
        round $arguments
        after=$(settled)
        echo "before $before"
        echo "after  $after, $arguments"
        [ "$before" != "$after" ] || break
        [ $try = 1 ] || fail "not everything was given back after $arguments"
        before=$after
    done
done
