#!/bin/sh
# Connections that cannot be made fail, each for its reason and in its time. (guests/net_client)
. /run/zooid/lib.sh
with_peer
