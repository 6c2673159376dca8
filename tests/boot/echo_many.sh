#!/bin/sh
# 500 connections at once, three times: each has its own bytes, and the memory of the first times comes back.
. /run/zooid/lib.sh
start "echo on"
check echo_client many
