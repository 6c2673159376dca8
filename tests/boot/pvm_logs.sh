#!/bin/sh
# `pvm logs -f` follows a log that is rotated, and `pvm logs` begins with the pVM's own lines.
. /run/zooid/lib.sh

log=$(console)

# goes_on: what the log gets from now on is shown.
goes_on() {
    # The last line may lack its end.
    wait_until 15 sh -c "[ \"\$(grep -c '^tick' '$log')\" -ge 2 ]"
    now=$(grep '^tick' "$log" | tail -n 2 | head -n 1 | tr -d '\r')
    wait_until 5 grep -qF "$now" followed
}

pvm run "$CFG" >/dev/null || fail "pvm run"
pvm logs -f "$NAME" >followed &
follower=$!
wait_until 15 grep -q "tick 3" followed

# Renamed; xenconsoled hears of it later. Nothing is lost.
mv "$log" "$log.1"
wait_until 15 grep -q "tick 9" followed
kill -HUP "$(cat /run/xenconsoled.pid)"
goes_on
sed '$d' followed | tr -d '\r' | awk '/^tick/ { if ($2 != next_one) exit 1; next_one = $2 + 1 }' || fail "a line is missing: $(cat followed)"

# Copied and truncated, twice: what was written in between is lost to everybody.
for _ in 1 2; do
    cp "$log" "$log.2"
    : >"$log"
    goes_on
done
pvm stop "$NAME" || fail "pvm stop"
wait $follower || fail "logs -f: status $?"
rm "$log.1" "$log.2"

# Another one of the name.
pvm run "$CFG" >/dev/null || fail "pvm run again"
wait_until 15 sh -c "pvm logs '$NAME' | grep -q 'tick 0'"
if python3 -S -c 'import os, sys; os.getxattr(sys.argv[1], "trusted.zooid.begin")' "$log"; then
    [ "$(pvm logs "$NAME" | head -n 1 | tr -d '\r')" = ready ] || fail "an earlier pVM's lines: $(pvm logs "$NAME")"
    [ "$(pvm logs "$NAME" | grep -c '^tick 0')" = 1 ] || fail "an earlier pVM's lines: $(pvm logs "$NAME")"
else
    echo "this file system keeps no attributes"
fi
pvm kill "$NAME" || fail "pvm kill"
wait_until 15 gone
