# Types lines at a guest's console and checks what tests/guests/src/bin/console_input.rs answers:
# console_type.py TTY.
import os
import select
import sys
import tty

terminal = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(terminal)
received = b""


def expect(text):
    """Reads until `text` has come; forgets all before it."""
    global received
    while text not in received:
        ready, _, _ = select.select([terminal], [], [], 10)
        assert ready, f"no {text!r} but {received[-300:]!r}"
        received += os.read(terminal, 4096)
    received = received.split(text, 1)[1]


def answer(line):
    total = 0
    for byte in line:
        total = (total * 31 + byte) % 1_000_003
    return f"got {len(line)} bytes, sum {total}: ".encode()


def enter(typed, line):
    typed += b"\r"
    while typed:
        typed = typed[os.write(terminal, typed[:512]) :]
        # The echo has to be read, or nothing goes on.
        while select.select([terminal], [], [], 0)[0]:
            global received
            received += os.read(terminal, 4096)
    expect(answer(line))


enter(b"hello", b"hello")
assert b'"hello"\r\n' in received or not received, received
enter(b"", b"")
enter(b"one two  three", b"one two  three")
enter(b"wrongg\x7f\x08\x7f\x7f\x7f\x7f\x7f\x7f\x7fright", b"right")
enter(bytes(range(97, 123)) * 200, bytes(range(97, 123)) * 200)
# Bytes that are not UTF-8 become the replacement character and do no harm.
enter(b"a\xffb", "a\ufffdb".encode())
enter(b"end", b"end")
