"""A WebSocket client of the echo, with the variables of an app of the mesh. Usage: websocket_client.py CHECK"""

import os
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

# By name through `http_proxy`, which means CONNECT here; by its own address without it.
BY_NAME = ("ws://echo/ws", True)
BY_ADDRESS = (f"ws://{os.environ['ECHO_SERVICE_HOST']}:{os.environ['ECHO_SERVICE_PORT']}/ws", None)
MEBIBYTE = 1024 * 1024


def opened(way, **options):
    url, proxy = way
    # Alive or not is the test's to say, on a slow machine too.
    return connect(url, proxy=proxy, max_size=None, open_timeout=50, close_timeout=50, ping_interval=None, **options)


def echo():
    for way in [BY_NAME, BY_ADDRESS]:
        with opened(way, subprotocols=["chat.v2", "chat.v1"]) as socket:
            assert socket.subprotocol == "chat.v2", socket.subprotocol
            assert "proxy-status" not in socket.response.headers
            # Each length that has another form of frame, up to frames of 1 MiB.
            for length in [0, 1, 125, 126, 127, 65535, 65536, MEBIBYTE - 1, MEBIBYTE]:
                message = os.urandom(length)
                socket.send(message)
                assert socket.recv() == message, length
                text = "ü" * (length // 2)
                socket.send(text)
                assert socket.recv() == text, length
            # In fragments, a ping between them.
            socket.send(iter([b"a" * 70000, b"b", b"", b"c" * 70000]))
            assert socket.recv() == b"a" * 70000 + b"b" + b"c" * 70000
            assert socket.ping("are you there").wait(50)


def both_ways():
    """Sends without waiting for what comes back: neither direction holds up the other."""
    messages = [bytes([n % 256]) * (MEBIBYTE if n % 10 == 0 else 1000) for n in range(200)]
    with opened(BY_NAME) as socket:
        sender = threading.Thread(target=lambda: [socket.send(message) for message in messages])
        sender.start()
        for number, message in enumerate(messages):
            assert socket.recv() == message, number
        sender.join()


def closing():
    for way in [BY_NAME, BY_ADDRESS]:
        for code, reason in [(1000, ""), (1001, "going"), (4321, "why ever")]:
            with opened(way) as socket:
                socket.send("last words")
                assert socket.recv() == "last words"
                socket.close(code, reason)
                assert (socket.protocol.close_sent.code, socket.protocol.close_rcvd.code) == (code, code)
                assert socket.protocol.close_rcvd_then_sent is False
        # The server ends it: more than it takes, and what is no text.
        for message, code in [(bytes(17 * MEBIBYTE), 1009), (b"\xff\xfe", 1007)]:
            with opened(way) as socket:
                try:
                    socket.send(message, text=code == 1007)
                    socket.recv()
                    raise AssertionError("it goes on")
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None and closed.rcvd.code == code, (code, closed)


globals()[sys.argv[1]]()
print("done")
