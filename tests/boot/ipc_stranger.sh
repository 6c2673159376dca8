#!/bin/sh
# A pVM of another family that knows where everything is attacks what a family shares, by requests to pvmd and by Xen's own calls, while the family
# works with it: every attempt is refused, no value of the family's is ever wrong, and afterwards nothing is left.
. /run/zooid/lib.sh

# siege: one victim's life, attacked by a stranger.
siege() {
    : >"$(console)"
    xl create -q "$CFG" 'extra="-- victim"' || fail "xl create"
    wait_until 30 grep -q 'at work' "$(console)"
    domains=$(xl list | awk 'NR > 2 { printf "domain=%s ", $2 }')
    secrets=$(sed -n 's/.*secrets: //p' "$(console)" | tr -d '\r')
    victim=$(xl domid "$NAME")
    : >"$(console stranger)"
    xl create -q "$CFG" 'name="stranger"' "extra=\"-- stranger $domains$secrets\"" || fail "xl create stranger"
    wait_until 120 grep -q 'Test result' "$(console stranger)"
    grep -q 'Test result: SUCCESS' "$(console stranger)" || fail "$domains$secrets: $(cat "$(console stranger)")"
    xl list | grep -q "^$NAME " || fail "the victim is gone: $(cat "$(console)")"
    xenstore-write "/local/domain/$victim/data/stop" 1
    wait_until 60 grep -q 'Test result' "$(console)"
    grep -q 'Test result: SUCCESS' "$(console)" || fail "the victim: $(cat "$(console)")"
    wait_until 60 gone
}

siege
daemon=$(pidof pvmd)
before=$(settled)
siege
after=$(settled)
grep 'all in all' "$(console stranger)"
grep rounds "$(console)"
echo "before $before"
echo "after  $after"
[ "$before" = "$after" ] || fail "not everything was given back"
[ "$(pidof pvmd)" = "$daemon" ] || fail "pvmd is another one: $(tail -n 5 /var/log/zooid/pvmd.log)"
