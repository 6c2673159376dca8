#!/bin/sh
# A client that falls silent is not waited for any longer than PATIENCE.
. /run/zooid/lib.sh
start "httpd on"
check httpd_client silence
still_serves /
