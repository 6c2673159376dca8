#!/bin/sh
# Xen answers a long sequence of operations as it is recorded that it did; the fake in memory is held to the same record by a unit test.
. /run/zooid/lib.sh
# The first time, Xen keeps a page for the next.
answers || fail "Xen and the record differ"
before=$(settled)
answers || fail "Xen and the record differ"
after=$(settled)
[ "$before" = "$after" ] || fail "not everything was given back: before $before, after $after"
