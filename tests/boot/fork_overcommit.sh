#!/bin/sh
# overcommit=never: a fork for whose copies there is not enough memory is refused with ENOMEM.
# Otherwise it is made, as long as nobody needs the copies; with memory enough, either way.
. /run/zooid/lib.sh

free_mib() {
    census | sed 's/.*"free_pages":\([0-9]*\).*/\1/' | awk '{ print int($1 / 256) }'
}

# forks: whether the guest's forks are made.
forks() {
    : >"$(console)"
    xl create -q "$CFG" || fail "xl create"
    wait_until 30 grep -q 'Test result' "$(console)"
    wait_until 30 xl_gone
    grep -q 'Test result: SUCCESS' "$(console)"
}

xl_gone() {
    ! xl domid "$NAME" 2>/dev/null
}

no_pvmd
start-pvmd --overcommit never --keep-free 4M || fail "pvmd"
forks || fail "with memory enough: $(cat "$(console)")"
# The rest is enough for the guest and a child, but not for copies of everything.
number=0
while take=$(($(free_mib) - 56)) && [ "$take" -gt 4 ]; do
    size=$((take > 500 ? 500 : take))
    printf 'name="hog%s"\nkernel="/opt/zooid/guests/hello"\nmemory=%s\non_poweroff="preserve"\n' "$number" "$size" >hog.cfg
    xl create -q hog.cfg || fail "xl create hog"
    number=$((number + 1))
done
echo "free: $(free_mib) MiB"
forks && fail "a fork was made though there is no memory for its copies"
grep -q OutOfMemory "$(console)" || fail "not ENOMEM: $(cat "$(console)")"
no_pvmd
start-pvmd --keep-free 4M || fail "pvmd"
forks || fail "overcommitted: $(cat "$(console)")"
while [ "$number" -gt 0 ]; do
    number=$((number - 1))
    xl destroy "hog$number"
done
no_pvmd
start-pvmd || fail "pvmd"
