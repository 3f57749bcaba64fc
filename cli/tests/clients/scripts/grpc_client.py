"""Calls grpc_server.py. Usage: grpc_client.py CHECK, with the variables of an app of the mesh."""

import asyncio
import os
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# grpcio reads `grpc_proxy`: names and addresses go to the sidecar by CONNECT, unless it is told not to.
DIRECT = [("grpc.enable_http_proxy", 0)]
BY_NAME = "grpc:50051"
BY_ADDRESS = f"{os.environ['GRPC_SERVICE_HOST']}:{os.environ['GRPC_SERVICE_PORT']}"
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# A generous one for what must succeed.
PATIENCE = 50


def channel(target, options=()):
    return grpc.aio.insecure_channel(target, options=[*ANY_SIZE, *options])


async def a_stream(messages):
    for message in messages:
        yield message


async def failure(call):
    """How a call fails."""
    try:
        if hasattr(call, "__aiter__"):
            messages = [message async for message in call]
        else:
            messages = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it succeeded with {messages}")


async def shapes():
    for target, options in [(BY_NAME, []), (BY_ADDRESS, []), (BY_ADDRESS, DIRECT)]:
        async with channel(target, options) as to:
            assert await to.unary_unary("/test.Echo/Unary")(b"hello", timeout=PATIENCE) == b"hello"
            assert await to.unary_unary("/test.Echo/Unary")(b"", timeout=PATIENCE) == b""
            call = to.unary_stream("/test.Echo/Down")(b"1000 100", timeout=PATIENCE)
            got = [message async for message in call]
            assert got == [bytes([n % 256]) * 100 for n in range(1000)], len(got)
            sent = a_stream([b"x" * 100] * 1000)
            assert await to.stream_unary("/test.Echo/Up")(sent, timeout=PATIENCE) == b"1000 100000"
            call = to.stream_stream("/test.Echo/Both")(timeout=PATIENCE)
            for n in range(100):
                # In turns: each message has to pass while the stream is open both ways.
                await call.write(b"%d" % n)
                assert await call.read() == b"%d" % n
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK


async def metadata():
    sent = [
        ("echo-text", "a, b;c=\"d\" %41"),
        ("echo-text", "a second one"),
        ("echo-bytes-bin", bytes(range(256))),
        ("echo-empty-bin", b""),
        ("echo-long", "x" * 4000),
    ]
    async with channel(BY_NAME) as to:
        calls = [
            to.unary_unary("/test.Echo/Unary")(b"", metadata=sent, timeout=PATIENCE),
            to.unary_stream("/test.Echo/Down")(b"1 1", metadata=sent, timeout=PATIENCE),
            to.stream_unary("/test.Echo/Up")(a_stream([b""]), metadata=sent, timeout=PATIENCE),
            to.stream_stream("/test.Echo/Both")(a_stream([b""]), metadata=sent, timeout=PATIENCE),
        ]
        for call in calls:
            initial = await call.initial_metadata()
            assert [(key, value) for key, value in initial if key.startswith("echo-")] == sent, initial
            assert "proxy-status" not in dict(initial), initial
            if hasattr(call, "__aiter__"):
                assert len([message async for message in call]) == 1
            trailing = dict(await call.trailing_metadata())
            assert trailing["tail"] == "the end" and trailing["tail-bin"] == bytes(range(256)), trailing
            assert await call.code() == grpc.StatusCode.OK


async def deadlines():
    async with channel(BY_NAME) as to:
        remaining = float(await to.unary_unary("/test.Echo/TimeRemaining")(b"", timeout=PATIENCE))
        assert 0 < remaining <= PATIENCE, remaining
        before = int(await to.unary_unary("/test.Echo/Seen")(b"", timeout=PATIENCE))
        error = await failure(to.unary_stream("/test.Echo/Hang")(b"", timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        await seen_cancelled(to, before + 1)


async def cancellation():
    async with channel(BY_NAME) as to:
        before = int(await to.unary_unary("/test.Echo/Seen")(b"", timeout=PATIENCE))
        stream = to.stream_stream("/test.Echo/Both")(timeout=PATIENCE, metadata=(("half-closes", "no"),))
        await stream.write(b"one")
        assert await stream.read() == b"one"
        assert stream.cancel()
        await seen_cancelled(to, before + 1)
        waiting = to.unary_stream("/test.Echo/Hang")(b"", timeout=PATIENCE)
        # The server has it: what is cancelled earlier may never leave.
        await waiting.initial_metadata()
        assert waiting.cancel()
        await seen_cancelled(to, before + 2)
        # The connection serves on.
        assert await to.unary_unary("/test.Echo/Unary")(b"still", timeout=PATIENCE) == b"still"


async def seen_cancelled(to, count):
    async def until():
        while int(await to.unary_unary("/test.Echo/Seen")(b"", timeout=PATIENCE)) < count:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until(), PATIENCE)


async def large():
    message = os.urandom(4 * 1024 * 1024)
    async with channel(BY_NAME) as to:
        assert await to.unary_unary("/test.Echo/Unary")(message, timeout=PATIENCE) == message
        call = to.stream_stream("/test.Echo/Both")(a_stream([message] * 4), timeout=PATIENCE)
        assert [len(back) async for back in call if back == message] == [len(message)] * 4


async def statuses():
    async with channel(BY_NAME) as to:
        # As the whole answer, and behind messages.
        for messages in [b"0", b"2"]:
            error = await failure(to.unary_stream("/test.Echo/Rich")(messages, timeout=PATIENCE))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            assert error.details() == "no: 100 % ünïcode", error.details()
            status = rpc_status.from_call(Said(error))
            detail = error_details_pb2.BadRequest()
            assert status.details[0].Unpack(detail)
            assert detail.field_violations[0].description == "too long: 100 % ünïcode", detail
        # The app's own word for what it does not have.
        for path in ["/test.Nothing/Unary", "/test.Echo/Nothing"]:
            error = await failure(to.unary_unary(path)(b"", timeout=PATIENCE))
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
            assert "no_route" not in error.details(), error


class Said:
    """What grpc_status reads of a call."""

    def __init__(self, error):
        self.error = error

    def trailing_metadata(self):
        return list(self.error.trailing_metadata())

    def code(self):
        return self.error.code()

    def details(self):
        return self.error.details()


async def refusals():
    """What the mesh answers itself has a gRPC status and the reason."""
    async with channel("routed:50051") as to:
        assert await to.unary_unary("/test.Echo/Unary")(b"routed", timeout=PATIENCE) == b"routed"
        for path in ["/test.Echo/Down", "/test.Nothing/Unary"]:
            error = await failure(to.unary_unary(path)(b"", timeout=PATIENCE))
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
            assert "no_route" in error.details(), error
    async with channel("nobody:50051") as to:
        error = await failure(to.unary_unary("/test.Echo/Unary")(b"", timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert "no_endpoint" in error.details(), error


async def many():
    """300 streams open at once over two connections, more than our next hop takes on one."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with channel(BY_NAME, own) as one, channel(BY_ADDRESS, [*own, *DIRECT]) as two:
        streams = [to.stream_stream("/test.Echo/Both")(timeout=PATIENCE) for to in [one, two] for _ in range(150)]
        for turn in range(3):
            # No stream goes on before all have had their answer.
            said = [b"%d %d" % (number, turn) for number in range(len(streams))]
            await asyncio.gather(*(stream.write(word) for stream, word in zip(streams, said)))
            assert await asyncio.gather(*(stream.read() for stream in streams)) == said
        await asyncio.gather(*(stream.done_writing() for stream in streams))
        codes = await asyncio.gather(*(stream.code() for stream in streams))
        assert set(codes) == {grpc.StatusCode.OK}, codes


asyncio.run(globals()[sys.argv[1]]())
print("done")
