"""Gives a running domain a network device on xenbr0, as a toolstack does, and before it the address that a child is to have.

give_vif.py DOMAIN MAC [ADDRESS]
"""

import subprocess
import sys
import time


def write(path, **nodes):
    """Writes what is below a path, all at once: the backend looks as soon as it exists."""
    words = [word for name, value in nodes.items() for word in ("%s/%s" % (path, name.replace("_", "-")), str(value))]
    subprocess.run(["xenstore-write"] + words, check=True)


def give(domain, mac, address=None):
    home = "/local/domain/%d" % domain
    front = home + "/device/vif/0"
    back = "/local/domain/0/backend/vif/%d/0" % domain
    if address:
        write(home + "/data", zooid_net=address)
    write(front, backend_id=0, mac=mac, handle=0, state=1)
    subprocess.run(["xenstore-chmod", "-r", front, "n%d" % domain, "r0"], check=True)
    # xen-netback wants to know a script, though this does its work.
    write(back, frontend=front, frontend_id=domain, online=1, handle=0, mac=mac, script="/etc/xen/scripts/vif-bridge", state=1)
    subprocess.run(["xenstore-chmod", "-r", back, "n0", "r%d" % domain], check=True)
    write(front, backend=back)
    plug = ["ip", "link", "set", "vif%d.0" % domain, "master", "xenbr0", "up"]
    for _ in range(300):
        if subprocess.run(plug, stderr=subprocess.DEVNULL).returncode == 0:
            return write(back, hotplug_status="connected")
        time.sleep(0.05)
    sys.exit("FAILED: dom0 makes no interface for domain %d" % domain)


if __name__ == "__main__":
    give(int(sys.argv[1]), *sys.argv[2:])
