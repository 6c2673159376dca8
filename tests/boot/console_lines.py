# Checks what tests/guests/src/bin/console.rs prints: console_lines.py FILE THREADS LINES.
import re
import string
import sys

file, threads, lines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
output = open(file, "rb").read().decode()
assert output.count("\n") == output.count("\r\n"), "a line feed without a carriage return"
seen = [0] * threads
for line in output.split("\r\n"):
    match = re.fullmatch(r"thread (\d) line (\d+) (.*)", line)
    if match is None:
        assert line in ("Test result: SUCCESS", ""), f"not a line: {line!r}"
        continue
    thread, number, tail = int(match[1]), int(match[2]), match[3]
    assert number == seen[thread], f"thread {thread}: line {number} and not {seen[thread]}"
    wanted = "".join(string.ascii_lowercase[(number + index) % 26] for index in range(64 - number % 7))
    assert tail == wanted, f"thread {thread} line {number}: {tail!r} and not {wanted!r}"
    seen[thread] += 1
assert seen == [lines] * threads, seen
