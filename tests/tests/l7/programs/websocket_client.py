"""Speaks WebSocket with the URI argv[1] (trusting the CA argv[2]): texts, bytes, large messages, ping, and close."""

import asyncio
import ssl
import sys

import websockets


async def main():
    uri, ca = sys.argv[1:]
    trust = {"ssl": ssl.create_default_context(cafile=ca), "server_hostname": "lb.test"} if uri.startswith("wss") else {}
    async with websockets.connect(uri, max_size=None, **trust) as socket:
        for message in ("hello", "", "x" * 70_000, b"\x00\xff" * 500_000):
            await socket.send(message)
            assert await socket.recv() == message, len(message)
        await asyncio.wait_for(await socket.ping(), 5)
        await asyncio.gather(*(socket.send(str(number)) for number in range(100)))
        assert [await socket.recv() for _ in range(100)] == [str(number) for number in range(100)]
    assert socket.close_code == 1000, socket.close_code
    print("all messages came back")


asyncio.run(main())
