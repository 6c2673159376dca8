#!/bin/sh
# A hotplug script that hangs, or leaves something in the background: it ends in time with all that it has started, the log and the
# events name it, and others fork meanwhile.
. /run/zooid/lib.sh

# no_script: nothing that a script has started is left, and no thread of pvmd waits for one.
no_script() {
    ! ps | grep -q '[s]leep 4321' && ! grep -qx vif "/proc/$(pidof pvmd)"/task/*/comm
}

printf '#!/bin/sh\nsleep 4321 &\nsleep 4321\n' >hang
printf '#!/bin/sh\nsleep 4321 &\necho called >>called\n' >background
chmod +x hang background

no_pvmd
start-pvmd --child-bridge xenbr0 --child-script "$PWD/hang" || fail "pvmd"
# It forks once by itself.
root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'
wait_until 15 sh -c 'ps | grep -q "[s]leep 4321"'
other=$(pvm run --name "$NAME-other" --memory 16 fork -- idle) || fail "pvm run beside a script that hangs"
pvm fork "$other" >/dev/null || fail "pvm fork beside a script that hangs: status $?"
why="no network device for a child: $PWD/hang: not done within 10s"
wait_until 40 sh -c "pvm events | grep -qF '$why'"
grep -qF "$why" /var/log/zooid/pvmd.log || fail "the log does not tell of it"
wait_until 30 no_script
pvm kill --family "$root" || fail "pvm kill --family"
pvm kill --family "$other" || fail "pvm kill --family"
wait_until 30 gone

no_pvmd
start-pvmd --child-bridge xenbr0 --child-script "$PWD/background" || fail "pvmd"
root=$(pvm run "$CFG") || fail "pvm run"
wait_until 30 test -e called
wait_until 15 no_script
! pvm events | grep -q "no network device" || fail "a script that succeeded: $(pvm events)"
pvm kill --family "$root" || fail "pvm kill --family"
wait_until 30 gone
no_pvmd
start-pvmd || fail "pvmd"
