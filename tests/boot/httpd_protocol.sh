#!/bin/sh
# Broken and unusual requests get the answers that RFC 9110 and 9112 ask for.
. /run/zooid/lib.sh
start "httpd on"
check httpd_client protocol
still_serves / /1k.txt
