"""Two gRPC servers, the control plane, and a client that finds them by an xds: target.

Arguments: the outrigger program, an empty folder. Prints a line for each call.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from concurrent import futures

outrigger, folder = sys.argv[1], pathlib.Path(sys.argv[2])
manifests = folder / "manifests"
manifests.mkdir()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


ads = free_port()
bootstrap = {
    "xds_servers": [
        {
            "server_uri": f"127.0.0.1:{ads}",
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }
    ],
    "node": {"id": "sidecar~127.0.0.1~caller.default~default.svc.cluster.local", "cluster": "caller.default"},
    # A destination is named like this on the wire; what stands behind xds:/// is the rest of it.
    "client_default_listener_resource_name_template": "outbound|%s",
}
# Read when the library is loaded.
os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps(bootstrap)

import grpc  # noqa: E402


def server(name):
    say = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    instance = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    instance.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": say}),))
    port = instance.add_insecure_port("127.0.0.1:0")
    instance.start()
    return instance, port


def service(name, port):
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: grpc, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: grpc, port: {port}}}]
---"""


def write(one, two, weights):
    text = service("echo", one) + service("one", one) + service("two", two) + f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: echo}}
spec:
  parentRefs: [{{group: "", kind: Service, name: echo}}]
  rules:
    - matches: [{{method: {{service: test.Echo}}, headers: [{{name: version, value: two}}]}}]
      backendRefs: [{{name: two, port: 80}}]
    - matches: [{{method: {{service: test.Echo}}}}]
      backendRefs: [{{name: one, port: 80, weight: {weights[0]}}}, {{name: two, port: 80, weight: {weights[1]}}}]
"""
    (folder / "new").write_text(text)
    (folder / "new").rename(manifests / "mesh.yaml")


(first, one), (second, two) = server("one"), server("two")
write(one, two, (1, 0))
log = open(folder / "log", "wb")
control = subprocess.Popen(
    [outrigger, "control", "--manifests", manifests, "--ads-port", str(ads), "--metrics-port", "0", "--api-port", "0"],
    stdout=log,
    stderr=log,
)
try:
    # The library is asked for its routes, not for how it comes back to a control plane that was not there.
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ads)) == 0:
                break
        time.sleep(0.1)
    channel = grpc.insecure_channel("xds:///echo.default.svc.cluster.local:80")
    say = channel.unary_unary("/test.Echo/Say")
    call = lambda metadata=(): say(b"", metadata=metadata, timeout=60, wait_for_ready=True).decode()
    print("plain:", call())
    print("header:", call([("version", "two")]))
    write(one, two, (0, 1))
    for _ in range(600):
        if (answer := call()) == "two":
            break
        time.sleep(0.1)
    print("edited:", answer)
finally:
    control.kill()
    control.wait()
