#!/bin/sh
# Of two interfaces the first is used.
. /run/zooid/lib.sh
sed -i "s/^vif.*/vif = ['bridge=xenbr0', 'bridge=xenbr0']/" "$CFG"
start "httpd on"
still_serves / /1k.txt
