#!/bin/sh
# Guest kernel mode has no red zone: the distribution's objects that use one are refused there, with the place. (guests/real_libraries)
. /run/zooid/lib.sh

for both in zlib/libz.so.1 brotli/libbrotlienc.so.1 sqlite/libsqlite3.so.0 libm/libm.so.6; do
    library=${both%/*}
    object=${both#*/}
    xl create -q "$CFG" "ramdisk='/run/zooid/real/unmodified/$library.tar'" "extra='mode=kernel -- $library $object'" || fail "xl create for $library"
    wait_console "Test result: FAILURE"
    grep -E "$object: loader rule: the code at 0x[0-9a-f]+(, in \`[^\`]+\`,)? uses the red zone" "$(console)" || fail "$library: $(cat "$(console)")"
    wait_until 15 sh -c "! xl list $NAME"
    # That failure was wanted.
    : >"$(console)"
done
