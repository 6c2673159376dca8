#!/bin/sh
# A router's message that packets are too long is followed: in TCP by smaller segments, in UDP by fragments. (net_path_mtu.py)
. /run/zooid/lib.sh
start "echo on"
check net_path_mtu
