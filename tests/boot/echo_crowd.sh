#!/bin/sh
# More connections than the guest has memory for: it turns some away, and goes on.
. /run/zooid/lib.sh
start "echo on"
check echo_client crowd
