#!/bin/sh
# A host name, and no server to ask. (guests/net_client)
. /run/zooid/lib.sh
with_peer
