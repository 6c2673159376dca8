#!/bin/sh
# Lines of several threads do not mix.
. /run/zooid/lib.sh
start "thread 7 line 0 "
wait_end 0
check console_lines "$(console)" 8 250
