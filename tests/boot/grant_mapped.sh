#!/bin/sh
# dom0 maps a page that the guest grants, and keeps it after the guest has dropped it.
. /run/zooid/lib.sh
start "granted"
domain=$(xl domid "$NAME")
data=/local/domain/$domain/data
check map_grant "$domain" "$(xenstore-read "$data/reference")" "$data/step" "$(console)"
wait_end 0
