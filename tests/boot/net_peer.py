"""The servers that tests/guests/src/bin/net_client.rs talks to, until they are killed."""

import asyncio
import os
import socket
import struct

ECHO, SILENT, CALLER, NAMES = 7001, 7002, 7003, 53
HOSTS = {
    b"one.test": ["10.0.0.1"],
    b"three.test": ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    b"loud.test": ["192.0.2.4"],
    b"alias.test": ["192.0.2.5"],
    b"second.test": ["192.0.2.6"],
    b"short.search.test": ["192.0.2.7"],
    b"bare.test": [],
    b"long.test": ["192.0.2.%d" % last for last in range(1, 101)],
}
SERVER_FAILED, NO_SUCH_NAME, REFUSED = 2, 3, 5


async def echo(reader, writer):
    while octets := await reader.read(65536):
        writer.write(octets)
        await writer.drain()
    writer.close()


async def silent(_reader, _writer):
    await asyncio.sleep(3600)


class Datagrams(asyncio.DatagramProtocol):
    """Sends back what `answer` makes of a datagram, unless that is None."""

    def __init__(self, answer):
        self.answer = answer

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, octets, peer):
        octets = self.answer(octets, peer)
        if octets is not None:
            self.transport.sendto(octets, peer)


def call(octets, peer):
    """Connects to the port that is named."""
    port = int(octets.removeprefix(b"connect "))
    asyncio.get_running_loop().create_task(asyncio.open_connection(peer[0], port))


def record(owner, kind, data):
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def wire(name):
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"


def resolve(query, second=False, by_tcp=False):
    """Answers a question for an address (RFC 1035, section 4). The second server knows what the first one does not."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    name = b".".join(labels).lower()
    question, owner, flags = query[12 : at + 5], b"\xc0\x0c", 0x8180
    if name == b"silent.test":
        return None
    records = [record(owner, 1, socket.inet_aton(address)) for address in HOSTS.get(name, [])]
    if name not in HOSTS:
        flags |= NO_SUCH_NAME
    if name == b"failing.test":
        flags, records = 0x8180 | (REFUSED if second else SERVER_FAILED), []
    elif name == b"second.test" and not second:
        flags, records = 0x8180 | SERVER_FAILED, []
    elif name == b"loud.test":
        question = question.upper()
    elif name == b"alias.test":
        # The address comes first, then the aliases that lead to it, the last one before the first.
        data = records[0][len(owner) + 10 :]
        records = [
            record(wire(b"end.test"), 1, data),
            record(wire(b"Middle.test"), 5, wire(b"END.test")),
            record(owner, 5, wire(b"middle.test")),
        ]
    elif name == b"long.test" and not by_tcp:
        flags, records = flags | 0x200, []
    return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records)


async def resolve_stream(reader, writer):
    """The same over TCP, a question for each connection (RFC 7766)."""
    length = struct.unpack(">H", await reader.readexactly(2))[0]
    answer = resolve(await reader.readexactly(length), by_tcp=True)
    writer.write(struct.pack(">H", len(answer)) + answer)
    await writer.drain()
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    await asyncio.start_server(echo, "10.0.0.1", ECHO)
    # A small buffer, so that a client's writes soon have no room.
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("10.0.0.1", SILENT))
    await asyncio.start_server(silent, sock=listener, limit=4096)
    await loop.create_datagram_endpoint(lambda: Datagrams(lambda octets, _peer: octets), ("10.0.0.1", ECHO))
    await loop.create_datagram_endpoint(lambda: Datagrams(call), ("10.0.0.1", CALLER))
    await loop.create_datagram_endpoint(lambda: Datagrams(lambda octets, _peer: resolve(octets)), ("10.0.0.1", NAMES))
    await asyncio.start_server(resolve_stream, "10.0.0.1", NAMES)
    if second := os.environ.get("SECOND_SERVER"):
        answers = lambda octets, _peer: resolve(octets, second=True)
        await loop.create_datagram_endpoint(lambda: Datagrams(answers), (second, NAMES))
    print("ready", flush=True)
    await asyncio.sleep(3600)


asyncio.run(main())
