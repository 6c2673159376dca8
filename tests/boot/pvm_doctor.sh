#!/bin/sh
# `pvm doctor` finds nothing wrong with a host that is well, names what was broken, and mends what nobody misses.
. /run/zooid/lib.sh

# doctor STATUS [OPTION...]: its output is in `said`.
doctor() {
    status=$1
    shift
    pvm doctor "$@" >said 2>&1
    got=$?
    [ "$got" = "$status" ] || fail "status $got, not $status: pvm doctor $*: $(cat said)"
}

# says TEXT...: a line of the last output has it.
says() {
    for text in "$@"; do
        grep -qF -- "$text" said || fail "not '$text': $(cat said)"
    done
}

# ids: those of all pVMs.
ids() {
    pvm list --json | grep -o '"id":[0-9]*' | sort
}

nobody() {
    python3 -S -c 'import os, sys
os.setgid(65534)
os.setuid(65534)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'
pvm fork "$root" >/dev/null || fail "pvm fork"
wait_until 15 sh -c 'pvm pool list --json | grep -q "\"state\":\"waiting\""'
doctor 0
says "good    xen          Xen 4." "dom0 is a PV guest" "MiB are free" "grant tables have 64 frames" "bridges: xenbr0" \
    "xenstored answers; it is the one in C" "pvmd 0." "file descriptors" "agree about pvmd's domains"
pvm doctor --json | json "it['status'] == 0 and all(found['level'] != 'bad' for found in it['findings'])"

# A node and a file of what has gone: named, and left alone without --repair.
xenstore-write /local/domain/4000/zooid "135072 135072 135072" /local/domain/4000/name gone /libxl/4000/type pv
mkdir /run/zooid/pvmd.999999
before=$(ids)
doctor 1
says "/local/domain/4000 is the home of a domain that has gone" "/run/zooid/pvmd.999999 is left of a pvmd that has ended" \
    "\`pvm doctor --repair\` mends 2 of these"
xenstore-exists /local/domain/4000/name || fail "it was removed without --repair"
doctor 0 --repair
says "mended  xenstore" "mended  files"
xenstore-exists /local/domain/4000 && fail "the node is still there"
xenstore-exists /libxl/4000 && fail "libxl's node is still there"
[ ! -e /run/zooid/pvmd.999999 ] || fail "the directory is still there"
[ "$(ids)" = "$before" ] || fail "not the same pVMs: $(pvm list)"
doctor 0

# Without a daemon: what it had prepared is nobody's.
prepared=$(pvm pool list --json | tr '{},' '\n' | sed -n 's/"domid"://p' | head -n 1)
no_pvmd
doctor 1
says "pvmd does not run" "domain $prepared was prepared for a child, and nobody owns it"
doctor 121 --repair
says "pvmd does not run" "mended  domains"
wait_until 15 sh -c "! xl list $prepared"
start-pvmd || fail "no new daemon"
[ "$(ids)" = "$before" ] || fail "not the same pVMs afterwards: $(pvm list)"
pvm fork "$root" >/dev/null || fail "pvm fork after the repair: status $?"
wait_until 15 sh -c 'pvm pool list --json | grep -q "\"state\":\"waiting\""'
doctor 0
nobody pvm doctor >said 2>&1
[ $? = 122 ] || fail "without the right: $(cat said)"
pvm kill --family "$root" || fail "pvm kill --family"
wait_until 30 gone
doctor 0
