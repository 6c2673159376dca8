#!/bin/sh
# Damaged objects, properly signed, are refused for what is wrong with them: by a guest in either mode, which goes on and has lost nothing, and by the
# host's store, which does not take them. (tests/runner/damaged.rs, guests/libraries)
. /run/zooid/lib.sh

refusals=/run/zooid/damaged.txt
# shellcheck disable=SC2046 # A word each.
set -- $(cut -d: -f1 "$refusals")
[ $# -gt 40 ] || fail "few objects: $*"

# says FILE REFUSALS: of each object there is a line that begins with its name and has the words of its refusal.
says() {
    awk 'FNR == NR { said[$1] = $0; next }
        !index(said[$1], substr($0, length($1) + 2)) { print "not said: " $0 ", but " said[$1]; wrong = 1 }
        END { exit wrong }' "$1" "$2" || fail "other words in $1"
}

for mode in kernel user; do
    xl create -q "$CFG" "ramdisk='/run/zooid/damaged.tar'" "extra='mode=$mode -- damaged $*'" || fail "xl create"
    succeeds "$mode"
    grep '^[a-z-]*: ' "$(console)" >"$mode"
    says "$mode" "$refusals"
    : >"$(console)"
done

mkdir damaged
tar -xf /run/zooid/damaged.tar -C damaged
empty_store
trust_tests
# Only who links it sees that this one lacks something.
grep -v '^cycle:' "$refusals" >to-say
while IFS=: read -r name _; do
    if said=$(pvm lib add "damaged/$name" 2>&1); then
        fail "pvm lib add $name: $said"
    fi
    echo "$name: $said" >>store
done <to-say
says store to-say
pvm lib list --json | grep -qF '[]' || fail "there is something in the store: $(pvm lib list)"
pvm lib add damaged/libwhole.so || fail "pvm lib add libwhole.so"
