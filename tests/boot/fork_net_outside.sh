#!/bin/sh
# A fork from outside: all threads live on in the child, those that accept and receive datagrams for the child, on its own address; those
# that waited for the parent's clients end.
. /run/zooid/lib.sh
start "serving on"
# says TEXT ADDRESS [OPTION]: whether what is sent there comes back.
says() {
    echo "$1" | timeout 2 nc ${3:+"$3"} "$2" 7000 | grep -qx "$1"
}
{
    echo before
    while ! [ -e stop ]; do sleep 0.1; done
    echo after
    sleep 1
} | nc 10.0.0.2 7000 >idle &
client=$!
wait_until 5 grep -q before idle
child=$(pvm fork "$NAME") || fail "pvm fork"
check give_vif "$((child & 32767))" 00:16:3e:00:01:01 10.0.0.33/24
wait_until 15 says child 10.0.0.33
wait_until 15 says datagram 10.0.0.33 -u
says parent 10.0.0.2 || fail "the parent does not serve"
touch stop
wait_until 5 grep -q after idle
kill "$client"
pvm kill "$child" || fail "pvm kill"
xenstore-rm "/local/domain/0/backend/vif/$((child & 32767))"
