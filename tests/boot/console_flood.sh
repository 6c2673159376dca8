#!/bin/sh
# Everything that the guest prints arrives, in order, with a carriage return before each line feed.
. /run/zooid/lib.sh
start "thread 0 line 0 "
wait_end 0
check console_lines "$(console)" 1 2000
