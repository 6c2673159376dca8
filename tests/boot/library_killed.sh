#!/bin/sh
# The daemon is killed (SIGKILL) inside the requests by which pVMs open libraries of the store, and started again: each library is opened and works, and in
# the end no domain, page, port, grant or node in xenstore is left.
. /run/zooid/lib.sh
empty_store

trust_tests
pvm lib add libraries/libbulk.so || fail "pvm lib add"

no_pvmd
: >pvmd.log
killed=0
life "version 1"
life "version 1"
before=$(settled)

# The first request on the host: it makes the libraries' domain.
for point in $(every "$(at_scale 2 1)" MakeMemoryOwner MakeMemoryOwner:after Hold:after FillLibrary:after GiveBack:after); do
    life "version 1" "$point"
    died "$point"
done
[ "$(settled)" = "$before" ] || fail "before $before, after $(settled)"

# A pVM that lives on beside daemons that die one behind the other, each of which reads the library anew.
begin churn
for point in $(every "$(at_scale 3 1)" Hold Hold:after Clear Clear:after FillLibrary FillLibrary:after GiveBack GiveBack:after MapObject MapObject:after MapObject.2 MapObject.3:after \
    Reply Reply:after Reply.2 Reply.3:after); do
    timeout -s KILL 60 pvmd --die-at "$point" >>pvmd.log 2>&1
    died "$point"
done
rm -f stop
supervise &
xenstore-write "/local/domain/$(xl domid "$NAME")/data/stop" 1
finish "$killed times killed"
[ "$(settled)" = "$before" ] || fail "a long life: before $before, after $(settled)"
rm stop
start-pvmd || fail "pvmd"
