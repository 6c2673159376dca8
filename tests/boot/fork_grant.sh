#!/bin/sh
# The backend that copies granted pages passes what the other one passes. That it leaves nothing is seen by fork_killed.
. /run/zooid/lib.sh

# succeeds GUEST ARGUMENTS...: starts the guest; it must end with success.
succeeds() {
    guest=$1
    shift
    printf 'name="%s"\nkernel="/opt/zooid/guests/%s"\nmemory=16\nextra="-- %s"\n' "$guest" "$guest" "$*" >grant.cfg
    : >"$(console "$guest")"
    xl create -q grant.cfg || fail "xl create"
    wait_until 90 grep -q 'Test result' "$(console "$guest")"
    grep -q 'Test result: SUCCESS' "$(console "$guest")" || fail "$guest $*: $(cat "$(console "$guest")")"
    wait_until 30 gone
}

no_pvmd
start-pvmd --backend grant || fail "pvmd"
for argument in returns codes tree many threads handlers random registers "rate 30"; do
    # shellcheck disable=SC2086
    succeeds fork $argument
done
for seed in $(at_scale 1 "1 2 3"); do
    succeeds fork_property "$seed"
done
no_pvmd
start-pvmd || fail "pvmd"
