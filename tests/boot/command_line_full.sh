#!/bin/sh
# Xen cuts a command line that is longer than its buffer: that is found out, and said in one line. One that just fits works.
. /run/zooid/lib.sh

# x COUNT: so many letters.
x() {
    head -c "$1" /dev/zero | tr '\0' x
}

cp "$CFG" short
echo "extra = '-- $(x 1100)'" >>"$CFG"
start "the command line fills all 1023 bytes"
wait_end 3
[ "$(wc -l <"$(console)")" = 1 ] || fail "more than one line"
xl destroy "$NAME"

echo "extra = '-- $(x 1019)'" >>short
CFG=short
start "argument 0 of 1: <$(x 1019)>"
wait_end 0
