# shellcheck shell=sh
# Sourced by what takes over after init: how a run ends.

# end STATUS: packs the results on the second disk and stops the machine.
end() {
    mkdir -p /results/console
    cd /results || exit
    echo "$1" >status
    xl dmesg >xl-dmesg.log
    cp /var/log/xen/console/guest-*.log console/ 2>/dev/null
    cp /var/log/zooid/pvmd.log . 2>/dev/null || : >pvmd.log
    mv /root/out out
    tar -c -f /dev/results status xl-dmesg.log pvmd.log console out || echo "dom0: /root/out does not fit on the results disk"
    sync /dev/results
    # QEMU's isa-debug-exit device: one write to its port ends the emulator.
    printf '\0' | dd of=/dev/port bs=1 seek=244 2>/dev/null
}
