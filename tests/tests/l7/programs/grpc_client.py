"""Calls the service of grpc_server.py: by TLS at argv[1] with the CA argv[2], and by prior knowledge at argv[3]."""

import queue
import sys

import grpc

secure, ca, plain = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
options = [("grpc.ssl_target_name_override", "lb.test"), ("grpc.default_authority", "lb.test")]
for channel in (grpc.secure_channel(secure, credentials, options), grpc.insecure_channel(plain)):
    echo = channel.unary_unary("/t.T/Echo")
    for size in (0, 1, 100_000, 3_000_000):
        reply, call = echo.with_call(b"x" * size, timeout=10)
        assert len(reply) == size, (size, len(reply))
        assert ("x-trailer", "seen") in [tuple(pair) for pair in call.trailing_metadata()]
    for method, code in (("Fail", grpc.StatusCode.NOT_FOUND), ("Nothing", grpc.StatusCode.UNIMPLEMENTED)):
        try:
            channel.unary_unary("/t.T/" + method)(b"", timeout=10)
            raise AssertionError(method + " succeeded")
        except grpc.RpcError as error:
            assert error.code() == code, error
    # Each message is answered before the next is sent: nothing may be held back.
    answered = queue.Queue()

    def messages():
        for number in range(5):
            yield b"%d" % number
            assert answered.get(timeout=5) == b"%d" % number

    for answer in channel.stream_stream("/t.T/Bidi")(messages(), timeout=10):
        answered.put(answer)
    for _ in range(200):
        echo(b"again", timeout=10)
print("all calls answered")
