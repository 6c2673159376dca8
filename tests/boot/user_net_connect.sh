#!/bin/sh
# As net_connect, in guest user mode. (guests/net_client)
. /run/zooid/lib.sh
with_peer
