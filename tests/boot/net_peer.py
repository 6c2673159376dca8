"""The servers that tests/guests/src/bin/net_client.rs talks to, until they are killed."""

import asyncio
import socket
import struct

ECHO, SILENT, CALLER, NAMES = 7001, 7002, 7003, 53
HOSTS = {b"one.test": ["10.0.0.1"], b"three.test": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}
NO_SUCH_NAME = 3


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


def resolve(query, _peer):
    """Answers a question for an address (RFC 1035, section 4)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    name = b".".join(labels)
    if name == b"silent.test":
        return None
    addresses = HOSTS.get(name, [])
    status = 0 if addresses else NO_SUCH_NAME
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | status, 1, len(addresses), 0, 0)
    records = [struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address) for address in addresses]
    return head + query[12 : at + 5] + b"".join(records)


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
    await loop.create_datagram_endpoint(lambda: Datagrams(resolve), ("10.0.0.1", NAMES))
    print("ready", flush=True)
    await asyncio.sleep(3600)


asyncio.run(main())
