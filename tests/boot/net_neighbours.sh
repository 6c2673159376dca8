#!/bin/sh
# Neighbours that do not answer ARP delay none of those that do. (guests/net_client)
. /run/zooid/lib.sh
for last in $(seq 100 149); do
    ip addr add 10.0.0.$last/24 dev xenbr0
done
trap 'for last in $(seq 100 149); do ip addr del 10.0.0.$last/24 dev xenbr0; done' EXIT
with_peer
