#!/bin/sh
# As fork_net, but the parent's address was given: a child has the one that dom0 writes for it, and none until then.
. /run/zooid/lib.sh
start "serving on"
check fork_net 10.0.0.2 here
for backend in $(xenstore-list /local/domain/0/backend/vif); do
    xl list "$backend" >/dev/null 2>&1 || xenstore-rm "/local/domain/0/backend/vif/$backend"
done
