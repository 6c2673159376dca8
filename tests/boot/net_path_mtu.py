"""A router says that packets of 1,280 octets are the longest on the way: the guest sends no longer ones."""

import os
import socket
import struct
import sys

GUEST, HERE = ("10.0.0.3", 7), "10.0.0.1"
MTU = 1280
DATA = os.urandom(200000)


def checksum(octets):
    total = sum(struct.unpack("!%dH" % (len(octets) // 2), octets))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def too_big(protocol, port):
    """The message about a packet from the guest's port 7 to a port here (RFC 792, RFC 1191)."""
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1500, 0, 0x4000, 64, protocol, 0, socket.inet_aton(GUEST[0]), socket.inet_aton(HERE))
    quoted = packet + struct.pack("!HHI", GUEST[1], port, 0)
    message = struct.pack("!BBHHH", 3, 4, 0, 0, MTU) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as router:
        router.sendto(message, (GUEST[0], 0))


def echoed(connection):
    sent, received = 0, bytearray()
    while len(received) < len(DATA):
        if sent < len(DATA):
            sent += connection.send(DATA[sent : sent + 8192])
        received += connection.recv(65536)
    return bytes(received)


def segment(connection):
    """The size of received segments: tcpi_rcv_mss of struct tcp_info (linux/tcp.h)."""
    return struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 20)[0]


before = socket.create_connection(GUEST, 10)
if echoed(before) != DATA or segment(before) != 1460:
    sys.exit("FAILED: segments of %d octets before the message" % segment(before))

connection = socket.create_connection(GUEST, 10)
connection.sendall(b"x")
connection.recv(1)
too_big(socket.IPPROTO_TCP, connection.getsockname()[1])
if echoed(connection) != DATA:
    sys.exit("FAILED: other data")
if segment(connection) != MTU - 40:
    sys.exit("FAILED: segments of %d octets" % segment(connection))

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.bind(("xenbr0", 0x0800))
link.settimeout(5)
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(5)
datagram.sendto(DATA[:1400], GUEST)
if datagram.recv(2048) != DATA[:1400]:
    sys.exit("FAILED: a datagram")
lengths = []
while sum(lengths) < 1400:
    frame = link.recv(2048)
    if frame[23] == 17 and frame[26:30] == socket.inet_aton(GUEST[0]):
        lengths.append(len(frame) - 34)
if lengths != [1256, 1408 - 1256]:
    sys.exit("FAILED: fragments with %s octets" % lengths)
print("ok")
