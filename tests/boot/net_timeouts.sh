#!/bin/sh
# Calls with a time-out end by it. (guests/net_client)
. /run/zooid/lib.sh
with_peer
