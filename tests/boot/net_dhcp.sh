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

# A lease of one address, with a router outside of it, whose renewals repeat nothing. It lasts 10 s;
# the guest is there for longer.
xl destroy "$NAME"
: >"$(console)"
killall udhcpd
ip addr add 10.9.9.1/32 dev xenbr0
ip route add 10.0.0.150 dev xenbr0 src 10.9.9.1
python3 -S /run/zooid/dhcp_odd.py >odd.log 2>&1 &
odd=$!
clean() {
    kill "$odd"
    ip route del 10.0.0.150 dev xenbr0
    ip addr del 10.9.9.1/32 dev xenbr0
    udhcpd /etc/udhcpd.conf
}
trap clean EXIT
wait_until 15 grep -q ready odd.log
start "httpd on http://10.0.0.150:80/"
ping -q -c 3 -i 0.2 -W 2 10.0.0.150 | grep -F ' 0% packet loss' || fail "no answer by the router outside"
curl -sS -f -m 10 -o page http://10.0.0.150/ || fail "httpd does not serve by the router outside"
wait_until 30 sh -c '[ "$(grep -c renewed odd.log)" -ge 3 ]'
[ "$(grep -c gave odd.log)" = 1 ] || fail "the lease was lost: $(cat odd.log)"
curl -sS -f -m 10 -o page http://10.0.0.150/ || fail "httpd does not serve after renewals"
