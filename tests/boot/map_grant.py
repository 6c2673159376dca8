# Maps a page that a guest has granted: map_grant.py DOMID REFERENCE STEP CONSOLE.
# The ioctls are those of Linux, include/uapi/xen/gntdev.h.
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import time

MAP_GRANT_REF = 24 << 16 | ord("G") << 8 | 0
UNMAP_GRANT_REF = 16 << 16 | ord("G") << 8 | 1

domain, reference, step, console = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]


def tell(value):
    subprocess.run(["xenstore-write", step, value], check=True)


device = os.open("/dev/xen/gntdev", os.O_RDWR)
request = bytearray(struct.pack("IIQII", 1, 0, 0, domain, reference))
fcntl.ioctl(device, MAP_GRANT_REF, request)
index = struct.unpack_from("Q", request, 8)[0]
page = mmap.mmap(device, 4096, offset=index)
assert page[:14] == b"from the guest", page[:14]
page[100:109] = b"from dom0"
tell("mapped")
limit = time.monotonic() + 10
while "dropped" not in open(console).read():
    assert time.monotonic() < limit, "the guest has not dropped its page"
    time.sleep(0.02)
# The guest has dropped the page; it is still the same one here.
assert page[:14] == b"from the guest", page[:14]
page.close()
fcntl.ioctl(device, UNMAP_GRANT_REF, struct.pack("QII", index, 1, 0))
tell("unmapped")
