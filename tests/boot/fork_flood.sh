#!/bin/sh
# A family that asks more of the daemon than it may have, without end. Another family begins meanwhile
# and makes each of its forks, dom0 answers, the log does not grow with what is refused, and
# afterwards nothing is left.
. /run/zooid/lib.sh

FORKS=$(at_scale 5 20)
# Lines of the log and grants that dom0 has mapped which one flood may cost.
LINES=500
GRANTS=200
# Pages that Xen keeps of what dom0 needed at most: fewer than there were pVMs.
PAGES=32

# Each end of a pVM has a line: their number is bounded by the rate of forks.
lines() {
    grep -vc ' ended: ' /var/log/zooid/pvmd.log
}

# count NAME COUNTS: one of the census.
count() {
    echo "$2" | sed "s/.*\"$1\":\([0-9]*\).*/\1/"
}

grants() {
    counts=$(census) || fail "census"
    count grants "$counts"
}

neighbour() {
    printf 'name="neighbour"\nkernel="/opt/zooid/guests/fork"\nmemory=8\nextra="-- rate %s"\n' "$1" >neighbour.cfg
    : >"$(console neighbour)"
    xl create -q neighbour.cfg || fail "xl create neighbour"
    wait_until 240 grep -q 'Test result' "$(console neighbour)"
    grep -q "rounds: $1" "$(console neighbour)" || fail "beside $flood: $(cat "$(console neighbour)")"
}

# beside FLOOD
beside() {
    flood=$1
    before_lines=$(lines)
    before_grants=$(grants) || fail "$before_grants"
    rm -f "$(console)"
    kill -HUP "$(cat /run/xenconsoled.pid)"
    begin "$flood"
    wait_until 60 grep -q 'the flood begins' "$(console)"
    neighbour $FORKS
    pvm stats >/dev/null || fail "$flood: pvm stats"
    # It is still at it, and the daemon is the same one.
    xl domid "$NAME" >/dev/null || fail "$flood is over: $(cat "$(console)")"
    [ "$(pidof pvmd)" = "$daemon" ] || fail "$flood: pvmd is another one: $(tail -n 5 /var/log/zooid/pvmd.log)"
    said=$(($(lines) - before_lines))
    mapped=$(grants) || fail "$mapped"
    mapped=$((mapped - before_grants))
    echo "$flood: $FORKS forks beside it, $said lines in the log, $mapped grants mapped"
    [ "$said" -le $LINES ] || fail "$flood: $said lines in the log: $(tail -n 3 /var/log/zooid/pvmd.log)"
    [ "$mapped" -le $GRANTS ] || fail "$flood: $mapped grants are mapped"
    pvm kill --family "$NAME" || fail "pvm kill --family"
    wait_until 120 gone
}

# begun WORDS...: another daemon.
begun() {
    no_pvmd
    start-pvmd "$@" || fail "pvmd"
    daemon=$(pidof pvmd)
    flood=nothing
    neighbour 5
    wait_until 60 gone
}

begun --family-pvms 32
beside ends
before=$(settled)
for flood in commits prepares garbage tables; do
    beside $flood
done
after=$(settled)
free=$(($(count free_pages "$before") - $(count free_pages "$after")))
[ "$free" -le $PAGES ] || fail "$free pages of memory are lost: before $before, after $after"
[ "${after#*,}" = "${before#*,}" ] || fail "before $before, after $after"
begun --backend grant --family-pvms 32
beside grants
no_pvmd
start-pvmd || fail "pvmd"
