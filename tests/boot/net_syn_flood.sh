#!/bin/sh
# 10,000 connection attempts of strangers who say no more keep no client out. (net_syn_flood.py)
. /run/zooid/lib.sh
start "echo on"
check net_syn_flood
