#!/bin/sh
# A fork from outside of a pVM in guest user mode whose threads never rest. (guests/red_zone)
. /run/zooid/lib.sh
start running
wait_until 15 pvm fork "$NAME"
wait_end 0
