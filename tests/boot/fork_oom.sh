#!/bin/sh
# No memory is left on the host: a child that writes to a page it shares ends with the status `oom`, and nobody else; a fork that cannot be
# made fails; when there is memory again, all goes on.
. /run/zooid/lib.sh

free_mib() {
    census | sed 's/.*"free_pages":\([0-9]*\).*/\1/' | awk '{ print int($1 / 256) }'
}

xl create -q "$CFG" || fail "xl create"
wait_console forked
# The list of its pages limits a guest; several take more.
take=$(($(free_mib) - 4))
number=0
while [ "$take" -gt 0 ]; do
    size=$((take > 500 ? 500 : take))
    printf 'name="hog%s"\nkernel="/opt/zooid/guests/hello"\nmemory=%s\non_poweroff="preserve"\n' "$number" "$size" >hog.cfg
    xl create -q hog.cfg >hog.log 2>&1 || break
    number=$((number + 1))
    left=$(free_mib)
    take=$((left - 4))
    [ "$size" -gt "$take" ] && [ "$take" -lt 6 ] && break
done
echo "free: $(free_mib) MiB, $number guests took the rest"
child=$(xl list | awk -v name="$NAME-" 'index($1, name) == 1 { print $2 }' | while read -r domain; do
    # The other one is prepared.
    if xenstore-read "/local/domain/$domain/console/tty" >/dev/null 2>&1; then echo "$domain"; fi
done)
xenstore-write "/local/domain/$child/data/go" 1
wait_until 60 grep -q 'the child ran out of memory' "$(console)"
while [ "$number" -gt 0 ]; do
    number=$((number - 1))
    xl destroy "hog$number"
done
wait_until 60 grep -q 'Test result' "$(console)"
cat "$(console)"
grep -q 'Test result: SUCCESS' "$(console)" || fail "no success"
