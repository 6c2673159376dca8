#!/bin/sh
# Clients that reset their connections do no harm to the others.
. /run/zooid/lib.sh
start "echo on"
check echo_client reset
