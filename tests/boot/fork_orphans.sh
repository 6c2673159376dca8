#!/bin/sh
# Parents that end first, in every way: their children go on with the memory they have from them, and afterwards nothing is left.
. /run/zooid/lib.sh

# says TEXT COUNT: whether that many lines with TEXT are on all consoles together.
says() {
    [ "$(cat /var/log/xen/console/guest-"$NAME"*.log | grep -c "$1")" = "$2" ]
}

# round ARGUMENT TEXT COUNT: starts the guest; its relatives must print TEXT so often.
round() {
    rm -f /var/log/xen/console/guest-"$NAME"*.log
    kill -HUP "$(cat /run/xenconsoled.pid)"
    # A guest that crashes is destroyed, too.
    xl create -q "$CFG" "extra=\"-- $1\"" 'on_crash="destroy"' || fail "xl create"
    case $1 in
    *_idle)
        wait_until 15 says idle 1
        # The one that says so: the root, or the child with the lowest id.
        xl destroy "$(victim "$1")" || fail "xl destroy"
        ;;
    esac
    wait_until 30 says "$2" "$3"
    wait_until 60 gone
    [ "$(settled)" = "$before" ] || fail "$1: not everything was given back: before $before, after $(settled)"
}

victim() {
    case $1 in
    orphans_idle) xl domid "$NAME" ;;
    middle_idle) pvm list --json | python3 -S -c '
import json, sys
pvms = json.load(sys.stdin)
root = next(pvm["id"] for pvm in pvms if not pvm["parent"])
print(next(pvm["domid"] for pvm in pvms if pvm["parent"] == root))' ;;
    esac
}

xl create -q "$CFG" 'extra="-- rate 2"' || fail "xl create"
wait_until 60 gone
before=$(settled)
for how in exit crash idle; do
    round orphans_$how "is right" 2
    round middle_$how "grandchild is right" 1
done
