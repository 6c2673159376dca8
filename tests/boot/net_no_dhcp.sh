#!/bin/sh
# Without a DHCP server the guest says so within its time, and ends.
. /run/zooid/lib.sh
killall udhcpd
xl create -q -e "$CFG" || fail "xl create"
wait_end 0
udhcpd /etc/udhcpd.conf
grep -q '^error: no network: no DHCP server has answered' "$(console)" || fail "another reason: $(cat "$(console)")"
