#!/bin/sh
# A guest with two vCPUs warns once, in one line, and works with one.
. /run/zooid/lib.sh
echo "vcpus = 2" >>"$CFG"
start "Test result: SUCCESS"
wait_end 0
[ "$(grep -c vCPU "$(console)")" = 1 ] || fail "not one warning"
grep -q "set vcpus=1" "$(console)" || fail "the warning does not say what to do"
