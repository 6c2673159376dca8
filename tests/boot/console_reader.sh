#!/bin/sh
# A thread that waits for input does not keep the others from printing.
. /run/zooid/lib.sh
start "thread 0 line 0 "
wait_end 0
check console_lines "$(console)" 1 2000
