#!/bin/sh
# Datagrams to dom0's server, and to nobody. (guests/net_client)
. /run/zooid/lib.sh
with_peer
