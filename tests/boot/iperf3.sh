#!/bin/sh
# The client iperf3 measures both directions, one test after the other, and is told what the server
# does not do.
. /run/zooid/lib.sh
start "iperf3 server on"
for direction in "" --reverse; do
    # shellcheck disable=SC2086 # no word where the direction is the usual one
    iperf3 --bytes 8M $direction --client 10.0.0.4 || fail "iperf3 $direction"
    # The server takes the next test when this one's connections are closed on both sides.
    sleep 1
done
for option in "--parallel 2" --bidir --udp; do
    # shellcheck disable=SC2086 # an option is one or two words
    iperf3 --bytes 1M $option --client 10.0.0.4 2>&1 | grep -F "not implemented" || fail "iperf3 $option"
done
# Data still under way when the client ended the test do not count.
grep -E "^received [1-9][0-9]{6} bytes" "$(console)" || fail "the server has received nothing"
