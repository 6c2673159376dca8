#!/bin/sh
# A port has one owner at a time. (guests/net_client)
. /run/zooid/lib.sh
with_peer
