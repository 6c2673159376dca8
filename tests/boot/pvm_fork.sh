#!/bin/sh
# Forks from outside, a family in `pvm` and in Xen's own tools, and its end.
. /run/zooid/lib.sh

# ids: those of the family, in the order of their age.
ids() {
    pvm list --json | python3 -S -c 'import json, sys
print(*[pvm["id"] for pvm in sorted(json.load(sys.stdin), key=lambda pvm: pvm["since_us"])])'
}

# Xen keeps some of what it takes for the most domains that there ever were.
root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 pvm fork -n 6 "$root"
for id in $(ids); do
    pvm fork "$id" >/dev/null || fail "pvm fork $id"
done
pvm kill --family "$root" || fail "pvm kill --family"
wait_until 30 gone
before=$(settled)
# It forks once by itself.
root=$(pvm run "$CFG") || fail "pvm run"
wait_until 15 sh -c 'pvm list --json | grep -q "\"kind\":\"child\""'
first=$(ids | cut -d' ' -f2)
wait_until 15 sh -c "pvm logs $first | grep -q '^idle'"

child=$(pvm fork "$NAME") || fail "pvm fork: status $?"
grandchild=$(pvm fork "$child") || fail "pvm fork of a child: status $?"
pvm fork -n 2 "$root" >pair || fail "pvm fork -n 2: status $?"
[ "$(wc -l <pair)" = 2 ] || fail "two children: $(cat pair)"
pvm list --json | json "len(it) == 6 and {pvm['root'] for pvm in it} == {$root}"
pvm inspect --json "$child" | json "it['parent'] == $root and it['children'] == [$grandchild] and it['kind'] == 'child'"
pvm inspect --json "$root" | json "len(it['children']) == 4 and it['can_fork']"
pvm list --tree >tree
head -n 1 tree | grep -q "^$NAME $root running" || fail "$(cat tree)"
[ "$(grep -c '^[|`]-- ' tree)" = 4 ] && [ "$(grep -c "^[| ]   \`-- .* $grandchild " tree)" = 1 ] || fail "$(cat tree)"
pvm pool list --json | json "len([it for it in it if it['parent'] == $root and it['state'] == 'waiting']) >= 1"

# Xen's tools: the children are there by name, can be paused, and have consoles of their own.
pvm list --json | python3 -S -c 'import json, sys
print(*[pvm["name"] for pvm in json.load(sys.stdin)], sep="\n")' >names
xl list | awk 'NR > 2 { print $1 }' >domains
while read -r name; do
    grep -qxF "$name" domains || fail "$name is not in xl list: $(cat domains)"
done <names
domid=$(pvm inspect --json "$first" | python3 -S -c 'import json, sys; print(json.load(sys.stdin)["domid"])')
timeout 5 xl console "$domid" >console </dev/null 2>&1
grep -q idle console || fail "xl console: $(cat console)"
xl pause "$domid" || fail "xl pause"
pvm inspect --json "$first" | json "it['state'] == 'paused'"
xl unpause "$domid" || fail "xl unpause"
pvm inspect --json "$first" | json "it['state'] == 'running'"

# Ends of children, told apart; the others live on.
pvm wait "$first" >waited &
waiter=$!
xl destroy "$domid" || fail "xl destroy"
wait $waiter
[ $? = 137 ] && grep -q "^$first: destroyed" waited || fail "xl destroy: $(cat waited)"
pvm kill "$child" || fail "pvm kill: status $?"
pvm wait "$child" >waited
[ $? = 137 ] && grep -q "^$child: signal 9" waited || fail "pvm kill: $(cat waited)"
pvm inspect --json "$grandchild" | json "it['parent'] == $root and it['state'] == 'running'"
refuses 123 "has ended" pvm fork "$child"
pvm stop "$grandchild" || fail "pvm stop: status $?"
[ "$(pvm wait "$grandchild")" = "$grandchild: exit 0" ] || fail "pvm stop: $(pvm wait "$grandchild")"
another=$(pvm fork "$NAME") || fail "pvm fork after all that: status $?"
pvm list --json | json "sorted(pvm['id'] for pvm in it) == sorted([$root, $another, $(paste -s -d , pair)])"

pvm kill --family "$NAME" || fail "pvm kill --family: status $?"
wait_until 30 gone
pvm list --json | json "it == []"
pvm pool list --json | json "it == []"
[ "$(settled)" = "$before" ] || fail "not everything was given back: before $before, after $(settled)"
