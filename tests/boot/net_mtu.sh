#!/bin/sh
# The guest keeps to the MTU of its interface: the segment size that it announces, and the packets that it sends. (net_mtu.py)
. /run/zooid/lib.sh
sed -i "s/^vif.*/vif = ['bridge=xenbr0,mtu=1400']/" "$CFG"
start "echo on"
[ "$(xenstore-read "/local/domain/$(xl domid "$NAME")/device/vif/0/mtu")" = 1400 ] || fail "xl wrote no mtu"
check net_mtu
