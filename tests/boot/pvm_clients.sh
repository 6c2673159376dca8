#!/bin/sh
# Clients that ask nothing, that wait, and that have shut down their sending side: they keep nobody out, and get their answers.
. /run/zooid/lib.sh

id=$(pvm run "$CFG") || fail "pvm run"
check pvm_clients "$id"
wait_until 15 gone
