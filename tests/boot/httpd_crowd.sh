#!/bin/sh
# More connections than the guest has memory for: it turns some away, and goes on.
. /run/zooid/lib.sh
start "httpd on"
check httpd_client crowd
