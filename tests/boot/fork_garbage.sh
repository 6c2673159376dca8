#!/bin/sh
# A pVM that writes garbage into the page it shares with pvmd harms only itself: pvmd goes on, another family forks as ever, and afterwards
# nothing is left.
. /run/zooid/lib.sh

neighbour() {
    printf 'name="neighbour"\nkernel="/opt/zooid/guests/fork"\nmemory=8\nextra="-- rate 30"\n' >neighbour.cfg
    : >"$(console neighbour)"
    xl create -q neighbour.cfg || fail "xl create neighbour"
    wait_until 60 grep -q 'Test result: SUCCESS' "$(console neighbour)"
}

neighbour
wait_until 60 gone
before=$(settled)
daemon=$(pidof pvmd)
for seed in $(at_scale "1 2" "1 2 3 4 5 6"); do
    : >"$(console)"
    xl create -q "$CFG" "extra=\"-- $seed\"" || fail "xl create"
    wait_until 20 grep -q 'garbage begins' "$(console)"
    neighbour
    # It ends by itself, or is ended: what it says of itself counts for nothing.
    usleep 3000000
    pvm list >list || fail "pvmd does not answer"
    for domain in $(xl list | awk 'NR > 2 { print $1 }'); do
        xl destroy "$domain" 2>/dev/null
    done
    wait_until 60 gone
    [ "$(pidof pvmd)" = "$daemon" ] || fail "pvmd is another one: $(tail -n 5 /var/log/zooid/pvmd.log)"
done
after=$(settled)
echo "before $before"
echo "after  $after"
[ "$before" = "$after" ] || fail "not everything was given back"
