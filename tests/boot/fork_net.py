"""Forks a server while clients talk to it (tests/guests/src/bin/fork_net.rs): they notice nothing, and the children answer on their own
addresses and never say a word on their parent's connections.

fork_net.py PARENT HOW: the parent's address; how a child gets its device: "pvmd", or "here", with an address that is given.
"""

import glob
import os
import re
import socket
import struct
import sys
import threading
import time

import give_vif

PARENT, HOW = sys.argv[1:]
PORT = 7000
FORKS = 3
RST, FIN, SYN = 4, 1, 2


def fail(why):
    print("FAILED: " + why)
    sys.stdout.flush()
    os._exit(1)


class Capture(threading.Thread):
    """All frames that reach the bridge: who sends from which address what kind of TCP segments."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("xenbr0", 0))
        self.seen = set()
        self.start()

    def run(self):
        while True:
            frame = self.socket.recv(65536)
            source, kind = frame[6:12].hex(":"), struct.unpack("!H", frame[12:14])[0]
            if kind == 0x806:
                self.seen.add((source, socket.inet_ntoa(frame[28:32]), "arp", 0, 0))
            elif kind == 0x800:
                address, protocol = socket.inet_ntoa(frame[26:30]), frame[23]
                transport = frame[14 + (frame[14] & 15) * 4 :]
                ports = struct.unpack("!HH", transport[:4])
                flags = transport[13] & (RST | FIN | SYN) if protocol == 6 else 0
                self.seen.add((source, address, {6: "tcp", 17: "udp"}.get(protocol, protocol), ports[1], flags))


class Pump(threading.Thread):
    """Sends for ever, and looks at what comes back."""

    def __init__(self):
        super().__init__(daemon=True)
        self.connection = connect(PARENT)
        self.rounds, self.longest = 0, 0
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            start = time.monotonic()
            # A round never begins with something that looks like a command.
            talk(self.connection, b"%08d" % self.rounds + os.urandom(20000))
            self.longest = max(self.longest, time.monotonic() - start)
            self.rounds += 1


def connect(address):
    return socket.create_connection((address, PORT), 10)


def receive(connection, length):
    octets = b""
    while len(octets) < length:
        try:
            piece = connection.recv(length - len(octets))
        except OSError as error:
            fail("%s: %s" % (connection.getpeername()[0], error))
        if not piece:
            fail("the connection is closed")
        octets += piece
    return octets


def talk(connection, octets):
    connection.sendall(octets)
    if receive(connection, len(octets)) != octets:
        fail("something else came back")


def line(connection, command):
    connection.sendall(command)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += receive(connection, 1)
    return answer.decode().strip()


def datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(2)
        for _ in range(5):
            udp.sendto(b"datagram", (address, PORT))
            try:
                if udp.recvfrom(100) == (b"datagram", (address, PORT)):
                    return
            except OSError:
                pass
    fail("no datagram from " + address)


def wait_for_line(child, pattern):
    """Waits until the console of a child has a line."""
    text = ""
    for _ in range(200):
        for name in glob.glob("/var/log/xen/console/guest-*-%d.log" % child):
            with open(name, errors="replace") as log:
                text = log.read()
            if "Test result" in text:
                fail(text)
            found = re.search(pattern, text)
            if found:
                return found
        time.sleep(0.1)
    fail("child %d does not say %s, but: %s" % (child, pattern, text))


def fork(connection, number):
    """Has the pVM at the other end fork. Returns the child's id, address and MAC."""
    answer = line(connection, b"fork\n")
    if not answer.isdigit():
        fail("fork: " + answer)
    child = int(answer)
    wait_for_line(child, r"connections are dead")
    if HOW == "here":
        give_vif.give(child & 0x7FFF, "00:16:3e:00:01:%02x" % number, "10.0.0.%d/24" % (40 + number))
    found = wait_for_line(child, r"serving on ([0-9.]+) ([0-9a-f-]+)")
    return child, found[1], found[2].replace("-", ":")


capture = Capture()
control, idle, pumps = connect(PARENT), connect(PARENT), [Pump(), Pump()]
talk(idle, b"before")
children = {}
for number in range(FORKS):
    child, address, mac = fork(control, number)
    print("child %d on %s %s" % (child, address, mac))
    if address == PARENT or (address, mac) in children.values():
        fail("the address or MAC is another's")
    silent = [entry for entry in tuple(capture.seen) if entry[0] == mac and entry[2] == "tcp"]
    if silent:
        fail("before anybody connects to it, the child sends %s" % silent)
    if HOW == "pvmd" and int(mac[:2], 16) & 3 != 2:
        fail("%s is not a locally administered address of one host" % mac)
    children[child] = (address, mac)
    talk(idle, b"between")

mine = set()
for address, _ in children.values():
    datagram(address)
    connection = connect(address)
    mine.add(connection.getsockname()[1])
    talk(connection, b"hello, child")
    talk(control, b"hello, parent")

# A child forks, too.
first = next(iter(children))
connection = connect(children[first][0])
mine.add(connection.getsockname()[1])
grandchild, address, mac = fork(connection, FORKS)
print("grandchild %d on %s %s" % (grandchild, address, mac))
with connect(address) as to_grandchild:
    mine.add(to_grandchild.getsockname()[1])
    talk(to_grandchild, b"hello, grandchild")
    talk(connection, b"hello again, child")
    to_grandchild.sendall(b"exit\n")
    if line(connection, b"wait\n") != "%d 7" % grandchild:
        fail("the grandchild did not end as it was told")

for child, (own, _) in children.items():
    ending = connect(own)
    mine.add(ending.getsockname()[1])
    ending.sendall(b"exit\n")
    if line(control, b"wait\n") != "%d 7" % child:
        fail("the child did not end as it was told")
    talk(idle, b"after")

for pump in pumps:
    pump.stopping = True
    pump.join(10)
    print("%d rounds, the longest took %.3f s" % (pump.rounds, pump.longest))
    if pump.rounds < 10 or pump.longest > 3:
        fail("a connection to the parent stood still")
datagram(PARENT)

allowed = dict(children.values())
allowed[address] = mac
macs = {mac: own for own, mac in allowed.items()}
for source, sender, protocol, port, flags in tuple(capture.seen):
    if source in macs:
        if sender not in (macs[source], "0.0.0.0"):
            fail("a child sent %s from %s" % (protocol, sender))
        if protocol == "tcp" and port not in mine:
            fail("a child sent to port %d, flags %d" % (port, flags))
    elif sender == PARENT and protocol == "tcp" and flags & (RST | FIN):
        fail("the parent ended a connection")
print("ok: %d kinds of frames seen" % len(capture.seen))
