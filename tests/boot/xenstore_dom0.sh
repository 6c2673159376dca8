#!/bin/sh
# dom0 writes what a guest reads: a long value, a long list, bytes that are no text, a hundred changes at a time.
. /run/zooid/lib.sh
start "watching"
data=/local/domain/$(xl domid "$NAME")/data

# pairs PREFIX FIRST LAST: paths and values for xenstore-write.
pairs() {
    seq "$2" "$3" | sed "s|.*|$data/$1& x|"
}

xenstore-write "$data/long" "$(head -c 4000 /dev/zero | tr '\0' v)"
# shellcheck disable=SC2046 # words are wanted
{
    xenstore-write $(pairs list/entry- 100 799)
    xenstore-write $(pairs change/ 100 199)
}
xenstore-write "$data/bytes" "$(printf '\377\376')"
xenstore-write "$data/step" go
wait_end 0
[ "$(xenstore-read "$data/answer")" = seen ] || fail "the guest gave no answer"
