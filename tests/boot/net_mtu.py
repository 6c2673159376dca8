"""The guest has an MTU of 1400: dom0's own may be larger."""

import socket
import struct
import sys

SERVER = ("10.0.0.3", 7)
DATA = b"z" * 200000

def announced(link):
    """The maximum segment size in the guest's SYN-ACK: its first option (RFC 9293, section 3.1)."""
    while True:
        frame = link.recv(2048)
        if len(frame) >= 58 and frame[23] == 6 and frame[26:30] == socket.inet_aton(SERVER[0]) and frame[47] & 0x12 == 0x12:
            return struct.unpack("!BBH", frame[54:58])


link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.bind(("xenbr0", 0x0800))
link.settimeout(5)
connection = socket.create_connection(SERVER, 10)
option = announced(link)
link.close()
if option != (2, 4, 1360):
    sys.exit("FAILED: the guest announced %s" % (option,))
sent = received = 0
connection.setblocking(True)
while received < len(DATA):
    if sent < len(DATA):
        sent += connection.send(DATA[sent : sent + 8192])
    received += len(connection.recv(65536))
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(5)
datagram.sendto(b"y" * 1372, SERVER)
if datagram.recv(2048) != b"y" * 1372:
    sys.exit("FAILED: a datagram of the MTU")
# Its answer would be longer than the MTU: there is none.
datagram.settimeout(1)
datagram.sendto(b"y" * 1373, SERVER)
try:
    datagram.recv(2048)
    sys.exit("FAILED: a datagram longer than the MTU")
except socket.timeout:
    pass
print("ok")
