#!/bin/sh
# A server forks while its clients talk to it: they notice nothing; each child gets a device of pvmd's and leases an address.
. /run/zooid/lib.sh
no_pvmd
start-pvmd --child-bridge xenbr0 || fail "pvmd"
start "serving on"
address=$(sed -n 's/^serving on \([0-9.]*\) .*/\1/p' "$(console)")
check fork_net "$address" pvmd
no_pvmd
