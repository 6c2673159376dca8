#!/bin/sh
# A library's own test says in a guest, word for word, what it says on Linux with the C library that Linux has, and its dynamic linker where objects are the same.
. /run/zooid/lib.sh

# Those for guest user mode are the distribution's own objects, but for those of tests/libraries/features.
case $NAME in
    *library_features_*) library=${NAME#*library_} ;;
    user_library_*) library=unmodified/${NAME#user_library_} ;;
    *) library=${NAME#library_} ;;
esac

# said FILE: what does not depend on how fast the machine is: no times, and of a line that is written over again its last state.
said() {
    awk '{ sub(/\r+$/, ""); sub(/.*\r/, ""); sub(/[.]* +[0-9]+[.][0-9][0-9][0-9]s$/, ""); print }' "$1"
}

# is_over: whether the guest has said its verdict, or is gone without one.
is_over() {
    grep -qE 'Test result|panicked|exception' "$(console)" || ! xl list "$NAME"
}

# on_linux: the same test in dom0.
on_linux() {
    case $library in
        features_*)
            rm -rf objects
            mkdir objects
            tar -xf "/run/zooid/real/$library.tar" -C objects
            LD_LIBRARY_PATH=objects /run/zooid/real/open_tests "${library}_tests.so"
            ;;
        *) "/run/zooid/real/$library" ;;
    esac
}

on_linux >linux 2>&1 || fail "the Linux program ends with $?: $(tail -n 3 linux)"
[ "$(wc -l <linux)" -gt 5 ] || fail "the Linux program says too little: $(cat linux)"
said linux >linux.said

xl create -q "$CFG" "ramdisk='/run/zooid/real/$library.tar'" || fail "xl create"
wait_until 200 is_over
grep -q 'Test result: SUCCESS' "$(console)" || fail "guest: $(tail -n 20 "$(console)")"
awk '/^ends\r*$/ { runs = 0 } runs { print } /^begins\r*$/ { runs = 1 }' "$(console)" >guest
said guest >guest.said
# In a storm the test runs several times.
for _ in $(seq "$(grep -c '^begins' "$(console)")"); do
    cat linux.said
done >expected
cmp expected guest.said || fail "the guest says something else: $(diff expected guest.said | head -n 20)"
[ -s expected ]
