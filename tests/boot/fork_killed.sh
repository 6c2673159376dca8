#!/bin/sh
# The daemon is killed (SIGKILL) before and after each of the operations that a guest's life with a fork is made of, and started
# again: the fork makes a child that ends as it should, or is refused and succeeds later; nothing hangs, and in the end no
# domain, page, port, grant or node in xenstore is left. By both backends.
. /run/zooid/lib.sh

# supervise [OPTION...]: keeps a daemon running until there is a file `stop`; the first one has the options.
supervise() {
    pvmd --backend "$backend" "$@" >>pvmd.log 2>&1
    while [ ! -e stop ]; do
        pvmd --backend "$backend" >>pvmd.log 2>&1
        usleep 20000
    done
}

# life [OPTION...]: one guest's life beside a daemon that begins with the options.
life() {
    echo "pvmd $*" >>pvmd.log
    rm -f stop
    : >"$(console)"
    supervise "$@" &
    wait_until 15 pvm stats
    xl create -q "$CFG" || fail "xl create"
    wait_until 60 grep -q 'Test result' "$(console)"
    grep -q 'Test result: SUCCESS' "$(console)" || fail "$*: $(cat "$(console)")"
    wait_until 30 gone
    # A daemon that is about to die may be asked; the next one answers.
    wait_until 15 sh -c 'pvm stats --json >stats'
    touch stop
    no_pvmd
    wait
}

no_pvmd
for backend in foreign grant; do
    life
    life
    before=$(settled)
    count=$(python3 -S -c 'import json; print(json.load(open("stats"))["operations"])')
    killed=0
    operation=0
    while [ "$operation" -lt "$count" ]; do
        for point in "$operation" "$operation:after"; do
            # Between two operations nothing changes outside of the daemon: by the second backend one of the two will do.
            [ "$backend $point" = "grant $operation" ] && continue
            life --die-at "$point"
            killed=$((killed + 1))
            [ "$(settled)" = "$before" ] || fail "$backend: killed at $point: before $before, after $(settled)"
        done
        operation=$((operation + 1))
    done
    echo "$backend: killed at $killed points"
    grep -c 'dying here' pvmd.log
done
rm stop
start-pvmd || fail "pvmd"
