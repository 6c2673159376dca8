#!/bin/sh
# Host names, asked of a server in dom0. (guests/net_client)
. /run/zooid/lib.sh
with_peer
