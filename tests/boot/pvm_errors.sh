#!/bin/sh
# An error of `pvm` is one useful line, with an exit code for its kind.
. /run/zooid/lib.sh

nobody() {
    python3 -S -c 'import os, sys
os.setgid(65534)
os.setuid(65534)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

start ready
refuses 120 "there is no pVM nosuch: \`pvm list --all\` shows those that there are" pvm inspect nosuch
refuses 120 "there is no pVM 2147483000" pvm kill 2147483000
refuses 120 "there is no guest and no file nosuch" pvm run nosuch
refuses 1 "is neither an image nor a configuration" pvm run /etc/passwd
refuses 122 "no right to use /run/zooid/pvmd.sock: run pvm as root" nobody pvm list
refuses 123 "cannot fork: its image does not hold the fork component" pvm fork "$NAME"
refuses 123 "cannot fork" pvm kill -s USR1 "$NAME"
refuses 124 "$NAME has not ended within 100ms" pvm wait --timeout 100ms "$NAME"
pvm kill nosuch "$NAME" >out 2>&1
[ $? = 120 ] && [ "$(wc -l <out)" = 1 ] || fail "one of two: $(cat out)"
refuses 123 "has ended: \`pvm list --all\` shows how" pvm stop "$NAME"
pvm dance >out 2>&1
[ $? = 2 ] || fail "an unknown command: $(cat out)"
pvm --json dance 2>&1 | json "it['error']['kind'] == 'usage' and 'dance' in it['error']['message']"
refuses 123 "for want of memory" pvm run --name "$NAME-large" --memory 1000000 waits
pvm --json inspect nosuch 2>&1 | json "it['error']['kind'] == 'no-such-pvm'"
pvm list --all | head -n 1 >out || fail "a reader that has seen enough"

# A second daemon keeps its hands off.
refuses 3 "another pvmd has /run/zooid/pvmd.sock" pvmd

# A daemon that dies while it is listened to, and one that is dead.
pvm events -f >events 2>&1 &
wait_until 5 grep -q "$NAME" events
no_pvmd
wait $!
[ $? = 121 ] || fail "the daemon died: status $?: $(cat events)"
grep -q 'pvmd ended before it answered' events || fail "the daemon died: $(cat events)"
for command in list "inspect x" "run hello" stats "pool list" events; do
    # shellcheck disable=SC2086
    refuses 121 "pvmd is not running (nobody at /run/zooid/pvmd.sock): start it with" pvm $command
done
grep -q ready "$(console)" && pvm logs "$NAME" >out || fail "logs need no daemon"
grep -q ready out || fail "logs without a daemon: $(cat out)"

# Bad settings are one line.
for setting in --pool=x --family-memory=4 --backend=magic --log=loud --start-timeout=soon; do
    pvmd $setting >out 2>&1
    [ $? = 2 ] && grep -q "invalid value .* for '${setting%%=*}" out || fail "$setting: $(cat out)"
done
refuses 2 "family-pvms is 0" pvmd --family-pvms=0
echo "poool = 3" >pvmd.toml
refuses 2 "pvmd.toml, line 1: unknown field \`poool\`" pvmd --config pvmd.toml
refuses 2 "cannot read nosuch.toml" pvmd --config nosuch.toml
echo 'pool = 3' >pvmd.toml
[ "$(pvmd --check --config pvmd.toml)" = "pvmd: the configuration is good" ] || fail "--check"

start-pvmd || fail "no new daemon"
pvm list >/dev/null || fail "the new daemon does not answer"
