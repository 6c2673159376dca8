#!/bin/sh
# Each rule holds in the guest and in Linux processes, and both have been asked the same.
. /run/zooid/lib.sh

topic=${NAME#posix_}

# judge WHOSE FILE: fails the test unless all of its cases are well; leaves the names of those that both have in FILE.cases.
judge() {
    tr -d '\r' <"$2" | sed -n '/^seed /p; /^case /p; /^only /p' >"$2.lines"
    echo "$1:"
    cat "$2.lines"
    grep -q ' ok$' "$2.lines" || fail "$1: nothing was tried"
    grep -v '^seed ' "$2.lines" | grep -qv ' ok$' && fail "$1: $(grep FAILED "$2.lines")"
    grep '^case ' "$2.lines" >"$2.cases"
}

/run/zooid/posix "$topic" >linux 2>&1
status=$?
judge Linux linux
[ "$status" = 0 ] || fail "the Linux program ends with $status"

xl create -q "$CFG" || fail "xl create"
wait_until 500 grep -qE 'Test result|panicked|exception' "$(console)"
cp "$(console)" guest
judge guest guest
grep -q 'Test result: SUCCESS' guest || fail "guest: $(tail -n 20 guest)"
diff linux.cases guest.cases || fail "the two were asked different things"
