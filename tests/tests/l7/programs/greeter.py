"""A server that speaks first: a greeting, then all that it gets until the client ends its direction, then a farewell."""

import socketserver
import sys


class Greeter(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"220 hello\r\n")
        while data := self.request.recv(65536):
            self.request.sendall(data)
        self.request.sendall(b"221 bye\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


Server(("0.0.0.0", int(sys.argv[1])), Greeter).serve_forever()
