"""A server of Envoy's rate limit call that knows nothing but the call. Usage: foreign_server.py HOST:PORT FOLDER

It counts by whole units, in a dictionary, counts negative hits like any others, and writes each descriptor as a line of FOLDER/calls.
"""

import json
import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
from grpc_tools import protoc

# What is used of the call, by its field numbers.
PROTO = """
syntax = "proto3";
package limits;
message Wrapped { uint64 value = 1; }
message Span { int64 seconds = 1; int32 nanos = 2; }
message Entry { string key = 1; string value = 2; }
message Allowed { uint32 requests_per_unit = 1; int32 unit = 2; }
message Descriptor {
  repeated Entry entries = 1;
  Allowed limit = 2;
  Wrapped hits_addend = 3;
  bool is_negative_hits = 4;
}
message Request { string domain = 1; repeated Descriptor descriptors = 2; uint32 hits_addend = 3; }
message Status { int32 code = 1; uint32 limit_remaining = 3; Span duration_until_reset = 4; }
message Response { int32 overall_code = 1; repeated Status statuses = 2; }
"""
OK, OVER_LIMIT = 1, 2
UNITS = {1: 1, 2: 60, 3: 3600, 4: 86400}


def messages(folder):
    (folder / "limits.proto").write_text(PROTO)
    if protoc.main(["protoc", f"-I{folder}", f"--python_out={folder}", str(folder / "limits.proto")]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, str(folder))
    import limits_pb2

    return limits_pb2


def main():
    address, folder = sys.argv[1], Path(sys.argv[2])
    pb2 = messages(folder)
    calls, used = open(folder / "calls", "a", buffering=1), {}

    def judge(domain, descriptor, addend):
        key = "|".join([domain] + [f"{entry.key}={entry.value}" for entry in descriptor.entries])
        hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else max(addend, 1)
        calls.write(json.dumps({"key": key, "hits": hits, "back": descriptor.is_negative_hits}) + "\n")
        unit, now = UNITS[descriptor.limit.unit], int(time.time())
        window = (key, now // unit)
        used[window] = used.get(window, 0) + hits
        left = descriptor.limit.requests_per_unit - used[window]
        reset = pb2.Span(seconds=unit - now % unit)
        return pb2.Status(
            code=OK if left >= 0 else OVER_LIMIT, limit_remaining=max(left, 0), duration_until_reset=reset
        )

    def should_rate_limit(request, context):
        statuses = [judge(request.domain, descriptor, request.hits_addend) for descriptor in request.descriptors]
        return pb2.Response(overall_code=max(status.code for status in statuses), statuses=statuses)

    handler = grpc.unary_unary_rpc_method_handler(
        should_rate_limit,
        request_deserializer=pb2.Request.FromString,
        response_serializer=pb2.Response.SerializeToString,
    )
    service = "envoy.service.ratelimit.v3.RateLimitService"
    # One thread, so that the dictionary needs no lock.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ShouldRateLimit": handler}),))
    if server.add_insecure_port(address) == 0:
        sys.exit(f"cannot listen on {address}")
    server.start()
    server.wait_for_termination()


main()
