"""Python's requests, which obeys `http_proxy`: what is called goes through the sidecar, by name or by address."""

import os
import zlib

import requests

ADDRESS = f"http://{os.environ['ECHO_SERVICE_HOST']}:{os.environ['ECHO_SERVICE_PORT']}"
PATIENCE = 50

session = requests.Session()
for base in ["http://echo", "http://echo.default:80", ADDRESS]:
    answer = session.get(f"{base}/a/path?q=ü", headers={"X-Asked-By": "requests"}, timeout=PATIENCE)
    assert answer.status_code == 200, answer
    said = answer.json()
    assert said["target"] == "/a/path?q=%C3%BC", said
    fields = dict(said["headers"])
    assert fields["X-Asked-By"] == "requests" and "Proxy-Connection" not in fields, fields

    answer = session.post(f"{base}/form", json={"number": 7}, timeout=PATIENCE)
    assert answer.json()["body"]["length"] == 13, answer.text


def pieces():
    for n in range(100):
        yield bytes([n]) * 10_000


# A body of unknown length goes up in chunks.
answer = session.post("http://echo/upload", data=pieces(), timeout=PATIENCE)
crc32 = zlib.crc32(b"".join(pieces()))
assert answer.json()["body"] == {"length": 1_000_000, "crc32": f"{crc32:08x}"}, answer.text

with session.get("http://echo/bytes/5000000?chunked", stream=True, timeout=PATIENCE) as answer:
    assert answer.headers["transfer-encoding"] == "chunked", answer.headers
    assert sum(len(piece) for piece in answer.iter_content(65536)) == 5_000_000

for status in [204, 304, 404, 418, 503]:
    answer = session.get(f"http://echo/status/{status}", timeout=PATIENCE)
    assert answer.status_code == status and "proxy-status" not in answer.headers, answer

# What the mesh answers itself says so.
answer = session.get("http://echo:81/", timeout=PATIENCE)
assert answer.status_code in (502, 503) and answer.headers["proxy-status"].startswith("outrigger;"), answer.headers
print("done")
