"""A gRPC service without generated code: Echo, Fail and Bidi take and give bytes."""

import sys
from concurrent import futures

import grpc


def echo(request, context):
    context.set_trailing_metadata((("x-trailer", "seen"),))
    return request


def fail(_request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def bidi(requests, _context):
    yield from requests


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/t.T/Echo": grpc.unary_unary_rpc_method_handler(echo),
            "/t.T/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/t.T/Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("0.0.0.0:" + sys.argv[1])
server.start()
server.wait_for_termination()
