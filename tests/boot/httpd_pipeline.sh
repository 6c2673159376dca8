#!/bin/sh
# Requests arrive many at once and cut anywhere; each is answered, in order.
. /run/zooid/lib.sh
start "httpd on"
check httpd_client pipeline
