#!/bin/sh
# `make soak` in dom0: forks in mixed shapes, then updates of a library and deaths of the daemon,
# for as long as soak.conf says. In the end all that was taken is given back, and the daemon is no
# bigger than it was. Prints a table, a line for a sample.
. ./lib.sh
. ./soak.conf

# The most that pvmd may have grown by, in KiB: pages that its heap has kept.
GROWTH=4096

CONSOLES=/var/log/xen/console
: >"$CONSOLES/guest-soak.log"

# of FIELD: a number of /proc/PID/status.
of() {
    sed -n "s/^$1:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$(pidof pvmd)/status"
}

# sample NAME FORKS: a line of the table; $counts are those of the census, $rss and $held the
# daemon's.
sample() {
    counts=$(settled)
    rss=$(of VmRSS)
    held="$(ls "/proc/$(pidof pvmd)/fd" | wc -l) $(of Threads)"
    files=$(find /var/log/xen | wc -l)
    line=$(echo "$counts" | python3 -S -c 'import json, sys
it = json.load(sys.stdin)
print("%10d %7d %5d %6d %6d %6d" % tuple(it[name] for name in ("free_pages", "domains", "dying", "event_channels", "grants", "xenstore_nodes")))')
    # shellcheck disable=SC2086
    printf '%-10s %8s %8s %5s %5s %6s %s\n' "$1" "$2" "$rss" $held "$files" "$line"
}

# one GUEST MEMORY WORDS: the life of a family; it has to succeed.
one() {
    NAME=soak
    printf 'name="soak"\nkernel="/opt/zooid/guests/%s"\nmemory=%s\n' "$1" "$2" >soak.cfg
    CFG=$PWD/soak.cfg
    begin "$3"
    succeeds "$3" 1800
}

# shapes FORKS: one of each, and so many one after the other; $made are the forks.
shapes() {
    one fork 16 "rate $1"
    one fork 64 "alive 60"
    one fork 16 many
    one fork 16 tree
    one fork 16 threads
    one fork 16 eager
    one ipc 32 generations
    one ipc 32 queue_many
    # As many as the guests make at least: rate, alive, many, tree, threads, eager.
    made=$((made + $1 + 60 + 13 + 6 + 1 + 12))
    forget_logs soak
}

# forget_logs NAME: the logs of a family's children, of which xenconsoled keeps one each.
forget_logs() {
    rm -f $CONSOLES/guest-"$1"-*.log
    kill -HUP "$(cat /run/xenconsoled.pid)"
}

printf '%-10s %8s %8s %5s %5s %6s %10s %7s %5s %6s %6s %6s\n' phase forks rss/KiB fds tasks files free/pages domains dying ports grants nodes
made=0
one fork 64 "alive 70"
shapes 100
made=0
sample begin 0
before=$counts rss_before=$rss held_before=$held files_before=$files
every=$((FORKS / 10 + 1)) next=$every
while [ $made -lt "$FORKS" ]; do
    shapes $((FORKS - made < 4000 ? FORKS - made : 4000))
    if [ $made -ge $next ]; then
        sample forks $made
        next=$((made + every))
    fi
done
sample forks $made

# judge WHAT: against the beginning.
judge() {
    [ "$counts" = "$before" ] || fail "$1: not everything was given back: before $before, after $counts"
    [ "$held" = "$held_before" ] || fail "$1: descriptors and threads of pvmd: before $held_before, after $held"
    [ $((rss - rss_before)) -le $GROWTH ] || fail "$1: pvmd has grown from $rss_before to $rss KiB"
    [ "$files" -le $((files_before + 2)) ] || fail "$1: files in /var/log/xen: before $files_before, after $files"
}
judge forks

# Daemons that die at any moment, and updates of a library of a pVM that forks.
empty_store
trust_tests
pvm lib add --name libpage.so.1 libraries/libpage.so.1 >/dev/null || fail "pvm lib add"
pvm lib add --name libpage.so.1 libraries/libpage.so.1@2.0.0 >/dev/null || fail "pvm lib add"
no_pvmd
rm -f stop
: >pvmd.log
supervise &
wait_until 15 pvm stats
NAME=pages
printf 'name="pages"\nkernel="/opt/zooid/guests/page_server"\nmemory=64\nvif=["bridge=xenbr0"]\nextra="net=10.0.0.2/24"\n' >pages.cfg
CFG=$PWD/pages.cfg
: >"$(console)"
xl create -q "$CFG" || fail "xl create"
wait_console "pages on port 80"

# again COMMAND...: until it succeeds: a daemon may die beneath it.
again() {
    wait_until 60 "$@"
}

updates=0 deaths=0
end=$(($(date +%s) + SECONDS_EACH)) shown=$(date +%s)
while [ "$(date +%s)" -lt $end ]; do
    for version in 2.0.0 1.0.0; do
        again pvm lib update libpage.so.1 --to $version "$NAME"
        updates=$((updates + 1))
        still_serves /7
        child=$(pvm fork "$NAME" 2>/dev/null) && again pvm kill "$child"
    done
    # At a moment that the seconds before it decide.
    kill -KILL "$(pidof pvmd)" 2>/dev/null
    deaths=$((deaths + 1))
    again pvm stats
    if [ "$(($(date +%s) - shown))" -ge $((SECONDS_EACH / 10 + 1)) ]; then
        shown=$(date +%s)
        sample updates "$updates/$deaths"
    fi
done
again pvm kill --family "$NAME"
wait_until 60 gone
touch stop
no_pvmd
wait
rm -rf /var/lib/zooid/lib
forget_logs pages
rm -f "$(console)"
start-pvmd || fail "pvmd"
NAME=soak
one fork 64 "alive 70"
shapes 100
made=0
sample end "$updates/$deaths"
rss=$rss_before held=$held_before
judge updates
echo "soak: $FORKS forks, $updates updates, $deaths deaths of the daemon: all was given back"
