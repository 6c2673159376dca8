#!/bin/sh
# A backend that never connects, because its hotplug script does nothing: the guest says so within its time, and ends.
. /run/zooid/lib.sh
printf '#!/bin/sh\nexit 0\n' >/etc/xen/scripts/vif-nothing
chmod +x /etc/xen/scripts/vif-nothing
sed -i "s/^vif.*/vif = ['bridge=xenbr0,script=vif-nothing']/" "$CFG"
xl create -q -e "$CFG" || fail "xl create"
wait_end 0
grep -q '^error: no network: the network backend stays in state 2' "$(console)" || fail "$(cat "$(console)")"
