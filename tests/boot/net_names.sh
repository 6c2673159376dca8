#!/bin/sh
# Host names, asked of two servers in dom0, of which each has its ways. (guests/net_client)
. /run/zooid/lib.sh
ip addr add 10.0.0.3/24 dev xenbr0
trap 'ip addr del 10.0.0.3/24 dev xenbr0' EXIT
SECOND_SERVER=10.0.0.3
export SECOND_SERVER
with_peer
