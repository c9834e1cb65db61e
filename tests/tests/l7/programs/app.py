"""A WSGI application: says what it got; /stream is answered in pieces of unknown length."""


def app(environment, start):
    coming = environment.get("CONTENT_LENGTH") or environment.get("HTTP_TRANSFER_ENCODING")
    body = environment["wsgi.input"].read() if coming else b""
    start("200 OK", [("Content-Type", "text/plain")])
    if environment["PATH_INFO"] == "/stream":
        return (b"line %d\n" % number for number in range(1000))
    fields = sorted(name for name in environment if name.startswith("HTTP_"))
    lines = [f"{environment['REQUEST_METHOD']} {environment['RAW_URI']}", f"body {len(body)}"]
    return ["\n".join(lines + [f"{name}={environment[name]}" for name in fields]).encode()]
