#!/bin/sh
# Without net= the address comes from dom0's DHCP server (10.0.0.100 to 10.0.0.200), and the guest answers there.
. /run/zooid/lib.sh
start "httpd on http://10.0.0."
address=$(sed -n 's|^httpd on http://\(.*\):80/.*|\1|p' "$(console)")
last=${address##*.}
if [ "$last" -lt 100 ] || [ "$last" -gt 200 ]; then
    fail "leased $address"
fi
ping -q -c 3 -i 0.2 -W 2 "$address" | grep -F ' 0% packet loss' || fail "no answer from $address"
curl -sS -f -m 10 -o page "http://$address/" || fail "httpd does not serve at $address"
