"""A client of httpd's that sends what no sane client sends, and looks at every byte that comes back."""

import calendar
import socket
import sys
import time

HOST = b"Host: 10.0.0.2\r\n"
GET = b"GET /1k.txt HTTP/1.1\r\n" + HOST + b"\r\n"


class Connection:
    def __init__(self):
        self.socket = socket.create_connection(("10.0.0.2", 80), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""

    def send(self, octets):
        self.socket.sendall(octets)

    def more(self):
        """Reads on; false at the end of the stream. A reset is an error."""
        octets = self.socket.recv(65536)
        self.input += octets
        return octets != b""

    def answer(self, head_only=False):
        """The next answer: status, headers, body."""
        while b"\r\n\r\n" not in self.input:
            if not self.more():
                raise EOFError("the connection ends before an answer: %r" % self.input)
        head, self.input = self.input.split(b"\r\n\r\n", 1)
        lines = head.decode("ascii").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = 0 if head_only else int(headers["content-length"])
        while len(self.input) < length:
            if not self.more():
                raise EOFError("the connection ends within a body")
        body, self.input = self.input[:length], self.input[length:]
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        return int(status), headers, body

    def page(self, target):
        """The body of the page at `target`, which must be there."""
        self.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        status, _, body = self.answer()
        assert status == 200, (target, status)
        return body

    def is_over(self):
        """True if the stream ends here, in order."""
        return self.input == b"" and not self.more()


def expect(what, condition):
    if not condition:
        sys.exit("FAILED: %s" % what)
    print("ok: %s" % what)


def kept(title, request, *statuses, head_only=False):
    """`request` gets these answers, and one more can follow on the same connection."""
    connection = Connection()
    connection.send(request)
    got = [connection.answer(head_only)[0] for _ in statuses]
    connection.send(GET)
    expect("%s: %s, then the next request" % (title, got), got == list(statuses) and connection.answer()[0] == 200)


def refused(title, request, status):
    """`request` gets this one answer, and the connection ends, though more was sent."""
    connection = Connection()
    connection.send(request + GET)
    got, headers, _ = connection.answer()
    closes = headers["connection"] == "close"
    expect("%s: %d, closed" % (title, got), got == status and closes and connection.is_over())


def protocol():
    connection = Connection()
    connection.send(GET)
    date = connection.answer()[1]["date"]
    age = time.time() - calendar.timegm(time.strptime(date, "%a, %d %b %Y %H:%M:%S gmt"))
    expect("the date %s is this second's, or the last one's" % date, -1 < age < 3)

    kept("a blank line first", b"\r\n" + GET, 200)
    kept("line feeds alone", b"GET / HTTP/1.1\nHost: a\n\n", 200)
    kept("an absolute target", b"GET http://10.0.0.2/about.txt HTTP/1.1\r\n" + HOST + b"\r\n", 200)
    index, about = [connection.page(path) for path in (b"/", b"/about.txt")]
    for target in b"http://10.0.0.2?x=/about.txt", b"/x/..", b"/?/about.txt":
        expect("%s is the index" % target.decode(), connection.page(target) == index)
    for target in b"/%61bout.txt", b"/x/%2e%2E/about.txt", b"http://10.0.0.2/about.txt?/":
        expect("%s is about.txt" % target.decode(), connection.page(target) == about)
    kept("names of headers in any case", b"GET / HTTP/1.1\r\nhOST: a\r\ncONTENT-lENGTH: 3\r\n\r\nabc", 200)
    kept("a body is skipped", b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 20\r\n\r\nGET /x HTTP/1.1\r\n\r\n\r\n", 200)
    kept("a long body is skipped", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\n" + b"x" * 60000, 405)
    kept("two lengths that agree", b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n" * 2 + b"\r\nx", 405)
    kept("HEAD", b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", 200, head_only=True)
    kept("an unknown method", b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 405)
    kept("HTTP/1.0 with keep-alive", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200)
    kept("a head of 8,000 bytes", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 7951 + b"\r\n\r\n", 200)
    kept("64 headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 63 + b"\r\n", 200)

    refused("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", 200)
    refused("Connection: close", b"GET / HTTP/1.1\r\n" + HOST + b"Connection: x, Close\r\n\r\n", 200)
    refused("close beside keep-alive", b"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", 200)
    refused("a host that is none", b"GET / HTTP/1.1\r\nHost: a b/c@d\r\n\r\n", 400)
    refused("an escape that is none", b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400)
    refused("a path above the root", b"GET /../about.txt HTTP/1.1\r\n" + HOST + b"\r\n", 400)
    refused("another version", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505)
    refused("a head of 9,000 bytes", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 9000 + b"\r\n\r\n", 431)
    refused("a target of 100,000 bytes", b"GET /" + b"a" * 100000, 431)
    refused("65 headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 64 + b"\r\n", 431)
    refused("no host", b"GET / HTTP/1.1\r\n\r\n", 400)
    refused("two hosts", b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400)
    refused("no version", b"GET /\r\n\r\n", 400)
    refused("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400)
    refused("zeroes", bytes(100), 400)
    refused("all octets", bytes(range(256)), 400)
    refused("TLS", bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + bytes(200), 400)
    refused("a blank before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)
    refused("a folded header", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", 400)
    refused("lengths that differ", b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400)
    for length in b"-1", b"+1", b"1 1", b"0x1", b"1,2", b"":
        request = b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: " + length + b"\r\n\r\n"
        refused("the length '%s'" % length.decode(), request, 400)
    for length in b"65537", b"18446744073709551616", b"9" * 100:
        request = b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: " + length + b"\r\n\r\n"
        refused("the length %s" % length.decode(), request, 413)
    chunks = b"Transfer-Encoding: chunked\r\n"
    refused("chunks", b"POST / HTTP/1.1\r\n" + HOST + chunks + b"\r\n3\r\nabc\r\n0\r\n\r\n", 501)
    refused("chunks and a length", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n" + chunks + b"\r\nabc", 400)


def pipeline():
    requests = (
        b"GET /about.txt HTTP/1.1\r\n" + HOST + b"\r\n"
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody"
        b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    wanted = [200, 405, 404]
    connection = Connection()
    for cut in range(1, len(requests)):
        connection.send(requests[:cut])
        # The server must see the pieces apart: its answer to the first can only follow if there is
        # one in it.
        time.sleep(0.002)
        connection.send(requests[cut:])
        got = [connection.answer()[0] for _ in wanted]
        if got != wanted or connection.input:
            sys.exit("FAILED: cut at %d: %s" % (cut, got))
    print("ok: cut at each of %d places" % (len(requests) - 1))
    for octet in requests:
        connection.send(bytes([octet]))
    expect("octet by octet", [connection.answer()[0] for _ in wanted] == wanted)
    connection.send(requests * 100)
    got = [connection.answer()[0] for _ in range(300)]
    expect("300 requests at once", got == wanted * 100)
    connection.send(GET * 2000)
    connection.socket.shutdown(socket.SHUT_WR)
    time.sleep(1)
    bodies = [connection.answer()[2] for _ in range(2000)]
    expect("2,000 requests before the first answer is read", all(body == b"z" * 1024 for body in bodies))
    expect("the end of the stream answers the client's", connection.is_over())


def silence():
    """httpd's patience is set to 1 s."""
    for title, start in ("nothing", b""), ("half a head", GET[:20]), ("half a body", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx"):
        connection = Connection()
        connection.send(start)
        if b"\r\n\r\n" in start:
            connection.answer()
        began = time.monotonic()
        over = connection.is_over()
        took = time.monotonic() - began
        expect("%s, then silence: closed after %.1f s" % (title, took), over and 0.9 < took < 5)
    connection = Connection()
    connection.send(GET)
    connection.answer()
    time.sleep(0.7)
    connection.send(GET)
    expect("a pause within its patience is none", connection.answer()[0] == 200)


def crowd():
    """As many connections as the guest takes, each with half a head: then it still serves whoever comes after them."""
    connections = []
    try:
        while len(connections) < 800:
            connection = socket.create_connection(("10.0.0.2", 80), 2)
            connections.append(connection)
            connection.sendall(GET[:-2] + b"A: " + b"a" * 7000)
    except OSError as error:
        print("ok: %d connections, then %s" % (len(connections), error))
    for connection in connections:
        connection.close()
    time.sleep(1)
    connection = Connection()
    connection.send(GET)
    expect("afterwards: an answer", connection.answer()[0] == 200)


{"crowd": crowd, "protocol": protocol, "pipeline": pipeline, "silence": silence}[sys.argv[1]]()
