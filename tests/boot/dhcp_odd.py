"""A DHCP server of the odd but legal kind, on dom0's bridge: one address, with a router outside of
it; a renewal repeats no option. It says what it has done."""

import socket
import struct
import sys

ADDRESS, ROUTER, SERVER = (socket.inet_aton(text) for text in ("10.0.0.150", "10.9.9.1", "10.0.0.1"))
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
LEASE = 10


def options(octets):
    found, at = {}, 240
    while octets[at] != 255:
        if octets[at] == 0:
            at += 1
            continue
        found[octets[at]] = octets[at + 2 : at + 2 + octets[at + 1]]
        at += 2 + octets[at + 1]
    return found


def option(code, data):
    return bytes([code, len(data)]) + data


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"xenbr0")
server.bind(("", 67))
print("ready", flush=True)
while True:
    request, _ = server.recvfrom(2048)
    kind = options(request)[53][0]
    renewed = request[12:16] != bytes(4)
    if kind == DISCOVER:
        answer = OFFER
    elif kind == REQUEST:
        answer = ACK
    else:
        continue
    reply = bytes([2, 1, 6, 0]) + request[4:8] + bytes(8) + ADDRESS + bytes(8) + request[28:44] + bytes(192)
    reply += bytes([99, 130, 83, 99]) + option(53, bytes([answer])) + option(54, SERVER)
    if not renewed:
        reply += option(51, struct.pack(">I", LEASE)) + option(1, b"\xff" * 4) + option(3, ROUTER)
    server.sendto(reply + b"\xff", ("255.255.255.255", 68))
    print("renewed" if renewed else "gave" if answer == ACK else "offered", flush=True)
