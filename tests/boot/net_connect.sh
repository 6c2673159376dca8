#!/bin/sh
# A connection to dom0 carries 1 MiB both ways. (guests/net_client)
. /run/zooid/lib.sh
with_peer
