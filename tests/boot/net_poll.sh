#!/bin/sh
# Sockets and a pipe are waited for together. (guests/net_client)
. /run/zooid/lib.sh
with_peer
