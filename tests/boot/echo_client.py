"""A client of echo's, for what nc and socat do not do: many connections at once, half of a connection, resets, datagrams."""

import hashlib
import socket
import struct
import sys
import time

SERVER = ("10.0.0.3", 7)


def text(number, length):
    """`length` octets that no other number has."""
    block = hashlib.sha256(b"%d" % number).digest()
    return (block * (length // len(block) + 1))[:length]


def receive(connection, length):
    octets = b""
    while len(octets) < length:
        piece = connection.recv(length - len(octets))
        if not piece:
            sys.exit("FAILED: the stream ends after %d of %d bytes" % (len(octets), length))
        octets += piece
    return octets


def exchange(connections, length):
    """Sends on every connection, then looks for the same on every one, the other way round."""
    for number, connection in enumerate(connections):
        connection.sendall(text(number, length))
    for number, connection in reversed(list(enumerate(connections))):
        if receive(connection, length) != text(number, length):
            sys.exit("FAILED: connection %d has the bytes of another one" % number)


def many():
    """Three times 500 connections, all open before the first is used."""
    for number in range(3):
        connections = [socket.create_connection(SERVER, 30) for _ in range(500)]
        exchange(connections, 100)
        exchange(connections, 4000)
        for connection in connections:
            connection.close()
        print("ok: 500 connections at once, time %d" % (number + 1))


def half():
    """Data sent before the end of the client's stream comes back, and then the end of the server's."""
    for length in 0, 1, 100000:
        connection = socket.create_connection(SERVER, 10)
        connection.sendall(text(length, length))
        connection.shutdown(socket.SHUT_WR)
        same = receive(connection, length) == text(length, length)
        if not same or connection.recv(1) != b"":
            sys.exit("FAILED: half a connection with %d bytes" % length)
        print("ok: %d bytes, then the end" % length)


def reset():
    """Connections that end by a reset, idle and within a transfer, leave nothing behind."""
    for number in range(300):
        connection = socket.create_connection(SERVER, 10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if number % 3:
            connection.send(text(number, 20000))
        if number % 3 == 2:
            receive(connection, 1000)
        connection.close()
    exchange([socket.create_connection(SERVER, 10)], 100000)
    print("ok: 300 resets, then an echo")


def datagrams():
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect(SERVER)
    for length in 0, 1, 511, 512, 1471, 1472:
        client.send(text(length, length))
        if client.recv(65536) != text(length, length):
            sys.exit("FAILED: a datagram of %d bytes" % length)
        print("ok: a datagram of %d bytes" % length)
    client.settimeout(0.5)
    try:
        client.send(bytes(1473))
        sys.exit("FAILED: a datagram in fragments: %d bytes came back" % len(client.recv(65536)))
    except TimeoutError:
        print("ok: a datagram in fragments is dropped")
    client.settimeout(5)
    for number in range(2000):
        client.send(text(number, 64))
        if client.recv(65536) != text(number, 64):
            sys.exit("FAILED: datagram %d" % number)
    print("ok: 2,000 datagrams, one after the other")
    # More than the queues hold: some may be lost, none may be wrong or come twice.
    for number in range(1000):
        client.send(text(number, 100))
    time.sleep(1)
    client.settimeout(0.2)
    found, whole = set(), {text(number, 100) for number in range(1000)}
    try:
        while True:
            datagram = client.recv(65536)
            if datagram not in whole or datagram in found:
                sys.exit("FAILED: a wrong datagram in a burst")
            found.add(datagram)
    except TimeoutError:
        pass
    client.settimeout(5)
    client.send(b"last")
    if len(found) < 64 or client.recv(65536) != b"last":
        sys.exit("FAILED: %d datagrams of a burst came back" % len(found))
    print("ok: %d of 1,000 datagrams in a burst" % len(found))


def crowd():
    """As many connections as the guest takes: then it still serves whoever comes after them."""
    connections = []
    try:
        while len(connections) < 800:
            connections.append(socket.create_connection(SERVER, 2))
            exchange(connections[-1:], 1000)
    except (OSError, SystemExit) as error:
        print("ok: %d connections, then %s" % (len(connections), error))
    for connection in connections:
        connection.close()
    time.sleep(1)
    exchange([socket.create_connection(SERVER, 10)], 100000)
    print("ok: afterwards an echo")


{"crowd": crowd, "many": many, "half": half, "reset": reset, "datagrams": datagrams}[sys.argv[1]]()
