#!/bin/sh
# `pvm lib update`: the library of a web server, from the host's store, is replaced 20 or 50 times under the load of 15 or 50 connections, and no request is lost; what cannot be
# is refused with the reason, and the server goes on; in families; nothing is left.
. /run/zooid/lib.sh
empty_store

trust_tests

# adds FILE: takes it into the store; NAME@VERSION is a version of NAME.
adds() {
    pvm lib add --name "${1%@*}" "libraries/$1" >/dev/null || fail "pvm lib add $1"
}

# serves VERSION: the server answers with a page of it.
serves() {
    curl -sS -f -m 10 http://10.0.0.2/7 >page || fail "the server is silent"
    [ "$(grep -c "version=$1>" page)" = 3 ] || fail "not version $1: $(cat page)"
}

adds libpage.so.1
pvm run "$CFG" >/dev/null || fail "pvm run"
wait_console "pages on port 80"
serves 1

refuses 123 "there is no version 2.0.0" pvm lib update libpage.so.1 --to 2.0.0 "$NAME"
refuses 123 "does not have it open" pvm lib update libother.so "$NAME"
refuses 123 "none has it open" pvm lib update libother.so --all
refuses 120 "there is no pVM nobody" pvm lib update libpage.so.1 nobody
pvm lib update libpage.so.1 >out 2>&1
[ $? = 2 ] && grep -q -- '--all' out || fail "no pVM named: $(cat out)"
serves 1
adds libpage.so.1@2.0.0

rounds=$(at_scale 10 40)
check page_client 10.0.0.2 "$(at_scale 15 50)" "$rounds" "$NAME"
serves 1
for line in "library libpage.so.1: 1.0.0 -> 2.0.0" "library libpage.so.1: 2.0.0 -> 1.0.0"; do
    [ "$(grep -c "$line" "$(console)")" -eq $(((10 + rounds) / 2)) ] || fail "not as often: $line"
done
pvm events >events
[ "$(grep -c "$NAME has the library libpage.so.1 in version 2.0.0 in place of 1.0.0" events)" -ge 1 ] || fail "no event: $(tail events)"

# The newest, in all that have it; a child has what its parent has, and is asked for itself.
child=$(pvm fork "$NAME") || fail "pvm fork"
pvm lib update libpage.so.1 --family "$NAME" >out || fail "--family: $(cat out)"
[ "$(wc -l <out)" = 2 ] && [ "$(grep -c 'libpage.so.1 1.0.0 -> 2.0.0$' out)" = 2 ] || fail "--family: $(cat out)"
serves 2
pvm lib update libpage.so.1 --to 1.0.0 "$child" >out || fail "the child: $(cat out)"
serves 2
pvm lib update libpage.so.1 --all >out || fail "--all: $(cat out)"
[ "$(grep -c 'libpage.so.1 1.0.0 -> 2.0.0$' out)" = 1 ] && [ "$(grep -c 'libpage.so.1 is 2.0.0 already$' out)" = 1 ] || fail "--all: $(cat out)"
pvm lib update --json libpage.so.1 --to 1.0.0 "$NAME" | json "it['from'] == '2.0.0' and it['to'] == '1.0.0'"
pvm lib update libpage.so.1 --to 1.0.0 "$NAME" | grep "is 1.0.0 already" || fail "the version that it has"
pvm kill "$child" || fail "pvm kill"

# A version that has left the store, or is revoked, is none.
pvm lib remove libpage.so.1@2.0.0
refuses 123 "there is no version 2.0.0" pvm lib update libpage.so.1 --to 2.0.0 "$NAME"
serves 1
pvm events | grep -q "$NAME keeps the library libpage.so.1 as it is" || fail "no event: $(pvm events | tail)"

# One that is not there any more, and one that replaces nothing.
other=$(pvm run --name other /opt/zooid/guests/waits -- idle) || fail "pvm run waits"
refuses 123 "replaces no libraries" pvm lib update libpage.so.1 "$other"
pvm kill --family "$NAME"
pvm kill other
wait_until 30 gone
pvm lib remove libpage.so.1
rm -r libraries /etc/zooid/keys/tests.pub
