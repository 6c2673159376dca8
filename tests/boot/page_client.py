"""Clients of page_server's, each with one connection, while the library that renders its pages is replaced again and again.

page_client.py ADDRESS CLIENTS UPDATES [PVM]: the server replaces it by itself, or `pvm lib update` does in this pVM. Every answer must be whole, of one version, and the one that was asked for; both versions must be seen.
"""

import re
import socket
import subprocess
import sys
import threading
import time

# Updates before those that are judged by the memory that they cost.
FIRST = 10
PAGE = re.compile(
    rb"<header version=(\d)>page (\d+)</header>\n"
    rb"<body version=(\d)>((?:line \d+ of page \d+\n)+)</body>\n"
    rb"<footer version=(\d)>page (\d+)</footer>\n"
)


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection((address, 80), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""

    def get(self, path):
        self.socket.sendall(b"GET %s HTTP/1.1\r\nHost: page\r\n\r\n" % path)
        while b"\r\n\r\n" not in self.input:
            self.more()
        head, self.input = self.input.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        while len(self.input) < length:
            self.more()
        body, self.input = self.input[:length], self.input[length:]
        return body

    def more(self):
        octets = self.socket.recv(65536)
        if not octets:
            raise EOFError("the connection ends within an answer")
        self.input += octets


def check(page, number):
    """The version that has rendered a page, which is all of this one."""
    match = PAGE.fullmatch(page)
    assert match, "no whole page: %r" % page
    versions = {int(match.group(group)) for group in (1, 3, 5)}
    assert len(versions) == 1, "a mixture: %r" % page
    version = versions.pop()
    lines = [b"line %d of page %d\n" % (line, number) for line in range(10 * version)]
    assert match.group(4) == b"".join(lines), "lines of version %d: %r" % (version, page)
    assert int(match.group(2)) == int(match.group(6)) == number, "page %d: %r" % (number, page)
    return version


class Client(threading.Thread):
    def __init__(self, address, number, over, pause):
        super().__init__(daemon=True)
        self.pause = pause
        self.connection = Connection(address)
        self.number, self.over = number, over
        self.requests = self.answers = 0
        self.versions, self.error = set(), None

    def run(self):
        try:
            while not self.over.is_set():
                number = self.number * 1000000 + self.requests
                self.requests += 1
                self.versions.add(check(self.connection.get(b"/%d" % number), number))
                self.answers += 1
                time.sleep(self.pause)
        except Exception as error:  # shown by the main thread
            self.error = error


def state(connection):
    words = connection.get(b"/state").decode().split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2])}


def replace(pvm, number):
    """Has dom0 replace the library for the `number`th time."""
    versions = ["1.0.0", "2.0.0"]
    to = versions[(number + 1) % 2]
    done = subprocess.run(["pvm", "lib", "update", "libpage.so.1", "--to", to, pvm], capture_output=True, text=True)
    expected = "%s: libpage.so.1 %s -> %s\n" % (pvm, versions[number % 2], to)
    if done.returncode != 0 or done.stdout != expected:
        sys.exit("FAILED: update %d: status %d: %s%s" % (number, done.returncode, done.stdout, done.stderr))


def load(address, count, updates, pvm):
    """Replaces the library so often under load; the state when all is still again."""
    over = threading.Event()
    control = Connection(address)
    before = state(control)
    # dom0's one CPU has time for pvm and pvmd.
    pause = 0 if pvm is None else 0.2
    clients = [Client(address, number, over, pause) for number in range(count)]
    for client in clients:
        client.start()
    done = 0
    if pvm is None:
        control.get(b"/update?%d" % updates)
    limit = time.monotonic() + 400
    while done < updates and time.monotonic() < limit:
        if any(client.error for client in clients):
            break
        if pvm is None:
            time.sleep(0.2)
            done = state(control)["updates"] - before["updates"]
        else:
            replace(pvm, done)
            done += 1
    over.set()
    for client in clients:
        client.join(60)
        client.connection.socket.close()
    for client in clients:
        if client.error:
            sys.exit("FAILED: client %d after %d answers: %r" % (client.number, client.answers, client.error))
    if done != updates:
        sys.exit("FAILED: not within the time limit: %d of %d updates" % (done, updates))
    while state(control)["busy"]:
        time.sleep(0.1)
    after = state(control)
    requests = sum(client.requests for client in clients)
    answers = sum(client.answers for client in clients)
    rendered = after["rendered"] - before["rendered"]
    versions = set().union(*(client.versions for client in clients))
    print("%d updates, %d requests, %d answers, %d pages rendered, versions %s" % (done, requests, answers, rendered, versions))
    if not requests == answers == rendered or min(client.answers for client in clients) == 0:
        sys.exit("FAILED: requests are lost")
    if versions != {1, 2}:
        sys.exit("FAILED: not both versions were seen")
    # The threads of connections end when they notice.
    time.sleep(2)
    return state(control)


address, count, updates, pvm = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), next(iter(sys.argv[4:]), None)
before = load(address, count, FIRST, pvm)
after = load(address, count, updates, pvm)
print("memory before: %s, after: %s" % (before, after))
# Less than an update: a version has more than a page, and what is known of it more than 200 octets.
if before["free"] - after["free"] > updates * 2048 or after["heap"] - before["heap"] > updates * 100:
    sys.exit("FAILED: memory is lost")
