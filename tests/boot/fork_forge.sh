#!/bin/sh
# A pVM that forges page tables gives its children nothing that it has no right to give: neither the family's table of members to be written, nor
# what relatives share without it, nor, when another daemon has taken over, what its parent wrote after the fork. The daemon lives on, and
# afterwards nothing is left.
. /run/zooid/lib.sh

attack() {
    begin "$1"
    if [ "$1" = ancestor ]; then
        wait_until 60 sh -c "cat /var/log/xen/console/guest-$NAME*.log | grep -q 'restart pvmd'"
        no_pvmd
        start-pvmd || fail "pvmd"
        xenstore-write "/local/domain/$(xl domid "$NAME")/data/restarted" 1
    fi
    # A fork that is refused is tried again by the guest for a while.
    succeeds "$1" 300
    cat /var/log/xen/console/guest-"$NAME"*.log | grep 'forks were made'
}

attacks() {
    for attack in members object ancestor; do
        daemon=$(pidof pvmd)
        attack $attack
        [ $attack = ancestor ] || [ "$(pidof pvmd)" = "$daemon" ] || fail "pvmd is another one: $(tail -n 5 /var/log/zooid/pvmd.log)"
        rm -f /var/log/xen/console/guest-"$NAME"*.log
        kill -HUP "$(cat /run/xenconsoled.pid)"
    done
}

leaves_nothing attacks
