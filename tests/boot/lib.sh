# shellcheck shell=sh
# For the boot tests' scripts (sourced as /run/zooid/lib.sh): they run in dom0
# with $NAME, the name of the case, and $CFG, a configuration for `xl create`. Their output is shown
# when they fail.

# fail WHY...: ends the test, and says what domains there are.
fail() {
    echo "FAILED: $*"
    xl list
    exit 1
}

# at_scale FEW MANY: the number for `make scale` is MANY, that for `make test` is FEW.
at_scale() {
    if [ -e /run/zooid/scale ]; then echo "$2"; else echo "$1"; fi
}

# every N WORDS...: each Nth of the words, beginning with the first.
every() {
    step=$1
    shift
    while [ $# -gt 0 ]; do
        echo "$1"
        shift $(($# < step ? $# : step))
    done
}

# console [NAME]: the file that holds what the guest has printed.
console() {
    echo "/var/log/xen/console/guest-${1:-$NAME}.log"
}

# wait_until SECONDS COMMAND...: repeats it until it succeeds; fails the test when three times as long is
# over: the seconds are those of a machine with nothing else to do.
wait_until() {
    limit=$(($(date +%s) + 3 * $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$limit" ] || fail "not within the time limit: $*"
        usleep 50000
    done
}

# wait_console TEXT [NAME]: waits until the guest has printed TEXT, for 15 s (see wait_until).
wait_console() {
    wait_until 15 grep -qF -- "$1" "$(console "${2:-}")"
}

# reason [NAME]: Xen's code for why the guest has shut down (0 poweroff, 1 reboot, 3 crash), "-"
# while it runs.
reason() {
    xl list -v "${1:-$NAME}" | awk 'NR == 2 { print $8 }'
}

# wait_end REASON [NAME]: waits until the guest has shut down, for 15 s (see wait_until); its reason must be
# REASON. The guest must have been created with `xl create -e`, else it disappears as it ends.
wait_end() {
    wait_until 15 has_ended "${2:-}"
    [ "$(reason "${2:-}")" = "$1" ] || fail "the guest ended for the reason $(reason "${2:-}"), not $1"
}

has_ended() {
    [ "$(reason "$@")" != - ]
}

# start TEXT: creates the guest and waits until it has printed TEXT.
start() {
    xl create -q -e "$CFG" || fail "xl create"
    wait_console "$1"
}

# empty_store: no library and no trusted key of a test before; those of the tests are below
# `libraries`, to be added.
empty_store() {
    rm -rf /var/lib/zooid/lib /etc/zooid/keys libraries
    mkdir libraries
    tar -xf /run/zooid/libraries.tar -C libraries
}

# trust_tests: the key that these are signed with is trusted.
trust_tests() {
    sed -n 's/^signer //p' libraries/libbase.so.manifest >tests.pub
    pvm key trust tests.pub || fail "pvm key trust"
}

# settled: the counts, as soon as they are twice the same: what destroyed domains held is given back
# a little later.
settled() {
    seen=
    until counts=$(census) && [ "$counts" = "$seen" ]; do
        seen=$counts
        usleep 200000
    done
    echo "$counts"
}

# leaves_nothing COMMAND...: runs it twice; the second time must leave nothing that was not there
# before. The first one does not count: Xen keeps what dom0 needed at most for ports and grants.
leaves_nothing() {
    "$@"
    before=$(settled)
    "$@"
    after=$(settled)
    echo "before $before"
    echo "after  $after"
    [ "$before" = "$after" ] || fail "not everything was given back"
}

# supervise [OPTION...]: keeps a daemon running, by the backend $backend if that is set, until there
# is a file `stop`; the first one has the options.
supervise() {
    pvmd ${backend:+--backend "$backend"} "$@" >>pvmd.log 2>&1
    while [ ! -e stop ]; do
        pvmd ${backend:+--backend "$backend"} >>pvmd.log 2>&1
        usleep 20000
    done
}

# begin EXTRA: starts the guest with these arguments.
begin() {
    : >"$(console)"
    xl create -q "$CFG" "extra=\"-- $1\"" || fail "xl create"
}

# succeeds WHAT [SECONDS]: the guest has to, within 60 s or so many, and to be gone with its family.
succeeds() {
    wait_until "${2:-60}" grep -q 'Test result' "$(console)"
    grep -q 'Test result: SUCCESS' "$(console)" || fail "$1: $(cat "$(console)")"
    wait_until 30 gone
}

# gone: whether dom0 is the only domain.
gone() {
    [ "$(xl list | wc -l)" = 2 ]
}

# finish WHAT: the guest has to succeed, to be gone with its family, and the daemon that `supervise`
# keeps running is ended.
finish() {
    succeeds "$1"
    # A daemon that is about to die may be asked; the next one answers.
    wait_until 15 sh -c 'pvm stats --json >stats'
    touch stop
    no_pvmd
    wait
}

# life EXTRA [POINT]: the life of a guest with these arguments beside a daemon that dies there, if
# it comes there.
life() {
    extra=$1
    shift
    rm -f stop
    supervise ${1:+--die-at "$1"} &
    wait_until 15 pvm stats
    begin "$extra"
    finish "$*"
}

# died POINT: the daemon must have; how often in all is counted in $killed.
died() {
    killed=$((killed + 1))
    [ "$(grep -c 'dying here' pvmd.log)" = "$killed" ] || fail "${backend:-pvmd}: no daemon came to $1: $(cat "$(console)")"
}

# check CLIENT [ARGUMENT...]: runs tests/boot/CLIENT.py; fails the test when that fails.
check() {
    client=$1
    shift
    python3 -S "/run/zooid/$client.py" "$@" || fail "$client $*"
}

# still_serves PAGE...: fails the test unless httpd answers each of them now.
still_serves() {
    for page in "$@"; do
        curl -sS -f -m 10 -o /dev/null "http://10.0.0.2$page" || fail "httpd does not serve $page"
    done
}

# with_peer: runs the guest against the servers of net_peer.py; it must end with success.
with_peer() {
    python3 -S /run/zooid/net_peer.py >peer.log 2>&1 &
    wait_until 15 grep -q ready peer.log
    xl create -q -e "$CFG" || fail "xl create"
    wait_until 60 has_ended
    kill $!
    cat peer.log
    grep -q 'Test result: SUCCESS' "$(console)" || fail "no success"
}

# refuses STATUS TEXT COMMAND...: the command must end with STATUS and say nothing but one line,
# with TEXT in it.
refuses() {
    status=$1
    text=$2
    shift 2
    "$@" >refused.out 2>&1 </dev/null
    got=$?
    [ "$got" = "$status" ] || fail "status $got, not $status: $*: $(cat refused.out)"
    [ "$(wc -l <refused.out)" = 1 ] || fail "more or less than a line: $*: $(cat refused.out)"
    grep -qF -- "$text" refused.out || fail "not '$text': $*: $(cat refused.out)"
}

# json EXPRESSION: fails the test unless the Python expression is true for what stands on standard
# input as JSON (`it`).
json() {
    python3 -S -c 'import json, sys
text = sys.stdin.read()
it = json.loads(text)
if not eval(sys.argv[1]):
    sys.exit(f"not {sys.argv[1]}: {text}")' "$1" || fail "json"
}

# no_pvmd: ends the daemon at once, as a crash would.
no_pvmd() {
    kill -KILL "$(pidof pvmd)"
    while pidof pvmd >/dev/null; do usleep 10000; done
}
