#!/bin/sh
# The end of one direction of a connection leaves the other one alone.
. /run/zooid/lib.sh
start "echo on"
check echo_client half
