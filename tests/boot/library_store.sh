#!/bin/sh
# Libraries of the host's store under `pvm run`: their constants and instructions are shared, in
# children and by several families, and nobody can write them; the version is one that the rules of
# both sides allow; what is refused shows in `pvm events`; a library that leaves the store stays
# with those who have it; nothing is left.
. /run/zooid/lib.sh
empty_store

# adds FILE...: takes them into the store; NAME@VERSION is a version of NAME.
adds() {
    for file in "$@"; do
        pvm lib add --name "${file%@*}" "libraries/$file" >/dev/null || fail "pvm lib add $file"
    done
}

# runs TEST [NAME]: starts the guest under `pvm run`; it must succeed.
runs() {
    : >"$(console "${2:-$NAME}")"
    pvm run --name "${2:-$NAME}" "$CFG" -- $1 || fail "pvm run: $1"
    wait_until 60 grep -q 'Test result' "$(console "${2:-$NAME}")"
    grep -q 'Test result: SUCCESS' "$(console "${2:-$NAME}")" || fail "$1: $(cat "$(console "${2:-$NAME}")"; tail -n 20 /var/log/zooid/pvmd.log)"
    wait_until 30 gone
}

# holds VERSION NAME: starts a guest that has the library open.
holds() {
    : >"$(console "$2")"
    pvm run --name "$2" "$CFG" -- hold "$1" || fail "pvm run: hold"
    wait_console 'holds it' "$2"
}

# tells NAME FIELD VALUE: writes to a guest's data.
tells() {
    xenstore-write "/local/domain/$(xl domid "$1")/data/$2" "$3"
}

# held: memory of all libraries that somebody has, in MiB.
held() {
    xl list zooid-libraries | awk 'NR == 2 { print $3 }'
}

runs "refused libbulk.so=none"
refuses 123 "is not trusted" pvm lib add libraries/libbulk.so
pvm key generate shop >/dev/null
trust_tests
adds libbulk.so
runs share
before=$(settled)
runs share
[ "$(settled)" = "$before" ] || fail "not everything was given back: before $before, after $(settled)"
grep 'frames for' "$(console)"

# Several families, and their children, have one copy.
holds 1 one
one=$(held)
[ "${one:-0}" -ge 1 ] || fail "no domain has the library: $(xl list)"
holds 1 two
holds 1 three
[ "$(held)" = "$one" ] || fail "there are copies: $(xl list)"

# It leaves the store: who has it keeps it, also in children that come later; others do not find it.
pvm lib remove libbulk.so
: >"$(console late)"
pvm run --name late "$CFG" -- refused libbulk.so=none
wait_console 'Test result: SUCCESS' late
tells one fork 1
wait_console 'fork 1 is done' one
# Another version comes, and a daemon that knows nothing of what is mapped.
adds libbulk.so@2.0.0
holds 2 four
[ "$(held)" -gt "$one" ] || fail "the other version is not held: $(xl list)"
no_pvmd
start-pvmd || fail "pvmd"
wait_until 15 pvm stats
for name in one two three four; do
    tells $name fork 1
done
tells one fork 2
wait_console 'fork 2 is done' one
for name in two three four; do
    wait_console 'fork 1 is done' $name
done
holds 2 five
for name in one two three four five; do
    tells $name stop 1
    wait_console 'Test result: SUCCESS' $name
done
wait_until 30 gone
[ "$(settled)" = "$before" ] || fail "not everything was given back: before $before, after $(settled)"

# Versions: the highest, a range of the image's, one that is not revoked.
adds libbulk.so
runs "version 2"
pvm lib remove libbulk.so@2.0.0
runs "version 1"

# Refused libraries, the part that refuses them, and the messages that dom0's users see.
adds librevoked.so libforeign.so libelsewhere.so libold.so libredzone.so libmiddle.so 2>/dev/null
runs "refused librevoked.so=- libforeign.so=- libelsewhere.so=- libold.so=- libredzone.so=- libnothing.so=none"
grep -q 'WARN zooid_dl::load: librevoked.so: the host.s rules do not allow it' "$(console)" || fail "no line on the console"
pvm events >events
for line in "librevoked.so: version rule: 1.0.0 is revoked" "libforeign.so: loader rule: the family $NAME may not map it" \
    "libelsewhere.so: loader rule: the image library_store may not map it" "libold.so: version rule: it is 0.9.9, wanted is ^1" \
    "libredzone.so: loader rule: the code at 0x"; do
    grep -qF -- " $NAME was refused the library $line" events || fail "no event: $line: $(cat events)"
done
pvm events --json | grep -q '"event":"library-refused"' || fail "no event for programs"
: >"$(console)"
xl create -q "$CFG" "ramdisk='/run/zooid/libraries.tar'" 'extra="-- refused libmutated.so=signature libunsigned.so=signature"'
wait_console 'Test result: SUCCESS'
pvm events | grep -qF "was refused the library libmutated.so: signature rule: the file is not the one that was signed" || fail "$(pvm events)"
wait_until 30 gone

# A file that is not what was signed, and a key that is not trusted any more.
object=/var/lib/zooid/lib/objects/$(sha512sum libraries/libbulk.so | cut -d ' ' -f 1)
cp "$object" kept
rm "$object"
tr '\001' '\002' <kept >"$object"
runs "refused libbulk.so=-"
pvm events | grep -qF "was refused the library libbulk.so: signature rule: the file is not the one that was signed" || fail "$(pvm events)"
rm "$object"
runs "refused libbulk.so=none"
cp kept "$object"
runs "version 1"
rm /etc/zooid/keys/tests.pub
runs "refused libbulk.so=-"
pvm events | grep -q "was refused the library libbulk.so: signature rule: the key .* is not trusted" || fail "$(pvm events)"
