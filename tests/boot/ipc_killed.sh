#!/bin/sh
# The daemon is killed (SIGKILL) inside the requests by which a family shares memory, and at the ends of its members, and started again (at a third of
# the moments, or at all of them): each
# request is answered once, names are neither lost nor made twice, and in the end no domain, page, port, grant or node in xenstore is left.
. /run/zooid/lib.sh

no_pvmd
: >pvmd.log
killed=0
life once
life once
before=$(settled)

# The first request of a family: it gets its memory owner.
for point in $(every "$(at_scale 3 1)" MakeMemoryOwner MakeMemoryOwner:after Hold:after MapMembers MapMembers:after Enrol:after Reply:after); do
    life once "$point"
    died "$point"
done
[ "$(settled)" = "$before" ] || fail "before $before, after $(settled)"

# A family that lives on beside daemons that die one behind the other. Three records are written for an object: that it is there, that its
# name has gone, and nothing any more. It is mapped by two requests.
begin without_end
for point in $(every "$(at_scale 3 1)" Hold Hold:after Clear:after Record Record:after Record.2 Record.2:after Record.3 Record.3:after MapObject MapObject:after \
    MapObject.2 MapObject.2:after GiveBack GiveBack:after GiveBack.2:after Enrol Enrol:after Strike Strike:after TellMembers \
    TellMembers:after TellMembers.2 Reply Reply:after Reply.3:after Reply.4:after); do
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
