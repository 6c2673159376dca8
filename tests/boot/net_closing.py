"""The client of tests/guests/src/bin/net_server.rs: each connection must end as that one ends it."""

import socket
import sys

SERVER = ("10.0.0.2", 8000)
ANSWER = 1 << 20


def connect():
    return socket.create_connection(SERVER, 10)


def everything(connection):
    octets = b""
    while piece := connection.recv(65536):
        octets += piece
    return octets


def expect(what, condition):
    if not condition:
        sys.exit("FAILED: %s" % what)
    print("ok: %s" % what)


def is_reset(connection):
    try:
        return connection.recv(1) is None
    except ConnectionResetError:
        return True


expect("all that was written arrives before the end", everything(connect()) == b"z" * ANSWER)

connection = connect()
connection.sendall(b"not read")
expect("input that was not read: reset", is_reset(connection))

connection = connect()
ended = everything(connection) == b""
connection.sendall(b"z" * ANSWER)
connection.shutdown(socket.SHUT_WR)
expect("the end of one direction, and data in the other one", ended)

accepted, waiting = connect(), connect()
accepted.sendall(b"drop")
expect("the listener is gone", accepted.recv(4) == b"gone")
expect("not accepted: reset", is_reset(waiting))
try:
    connect()
    expect("nobody listens", False)
except ConnectionRefusedError:
    expect("nobody listens", True)
accepted.close()
