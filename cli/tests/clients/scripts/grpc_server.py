"""A gRPC service without a proto file: requests and answers are bytes. Usage: grpc_server.py HOST:PORT

What its callers cut short it counts; Seen tells how many calls those were.
"""

import asyncio
import sys

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

SEEN = {"cancelled": 0}


async def greet(context):
    """Initial metadata: what the caller sent under `echo-`. Trailing metadata: text and bytes."""
    sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("echo-")]
    await context.send_initial_metadata(sent)
    context.set_trailing_metadata([("tail", "the end"), ("tail-bin", bytes(range(256)))])


async def unary(request, context):
    await greet(context)
    return request


async def down(request, context):
    """`COUNT SIZE`: so many messages of so many bytes."""
    count, size = map(int, request.split())
    await greet(context)
    for number in range(count):
        yield bytes([number % 256]) * size


async def up(requests, context):
    """How many messages, and how many bytes."""
    await greet(context)
    count = total = 0
    async for request in requests:
        count, total = count + 1, total + len(request)
    return b"%d %d" % (count, total)


async def both(requests, context):
    """Every message comes back before the next is read. `half-closes: no`: the caller gives up at the end, and says nothing before."""
    await greet(context)
    try:
        async for request in requests:
            yield request
        # The library may show a cancelled call's messages as ended, a moment before it cancels the handler.
        if any((key, value) == ("half-closes", "no") for key, value in context.invocation_metadata()):
            await asyncio.sleep(3600)
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1
        raise


async def hang(request, context):
    """Begins an answer and never ends it, but says by Seen that its caller gave up."""
    await context.send_initial_metadata(())
    try:
        await asyncio.sleep(3600)
        yield b"never"
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1
        raise


async def seen(request, context):
    return b"%d" % SEEN["cancelled"]


async def time_remaining(request, context):
    return b"%f" % context.time_remaining()


async def rich(request, context):
    """Fails with a status that carries details, as `grpc-status-details-bin`; after as many messages as asked for."""
    for _ in range(int(request)):
        yield b"before the end"
    violation = error_details_pb2.BadRequest.FieldViolation(field="text", description="too long: 100 % ünïcode")
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no: 100 % ünïcode", details=[detail])
    await context.abort_with_status(rpc_status.to_status(status))


async def main(address):
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(unary),
                "Down": grpc.unary_stream_rpc_method_handler(down),
                "Up": grpc.stream_unary_rpc_method_handler(up),
                "Both": grpc.stream_stream_rpc_method_handler(both),
                "Hang": grpc.unary_stream_rpc_method_handler(hang),
                "Seen": grpc.unary_unary_rpc_method_handler(seen),
                "TimeRemaining": grpc.unary_unary_rpc_method_handler(time_remaining),
                "Rich": grpc.unary_stream_rpc_method_handler(rich),
            },
        ),
    ))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main(sys.argv[1]))
