"""Speaks with greeter.py at argv[1]:argv[2], by TLS when there is a CA argv[3]."""

import socket
import ssl
import sys

connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
secure = len(sys.argv) > 3
if secure:
    connection = ssl.create_default_context(cafile=sys.argv[3]).wrap_socket(connection, server_hostname="lb.test")
greeting = b""
while len(greeting) < 11:
    greeting += connection.recv(100)
assert greeting == b"220 hello\r\n", greeting
sent = bytes(range(256)) * 400
connection.sendall(sent)
# Python's ssl cannot end one direction only.
if not secure:
    connection.shutdown(socket.SHUT_WR)
expected = sent + (b"" if secure else b"221 bye\r\n")
got = b""
while len(got) < len(expected):
    data = connection.recv(65536)
    assert data, len(got)
    got += data
assert got == expected
print("greeted and echoed")
