// Node's own clients, calling the address the variables name.
"use strict";
const assert = require("node:assert");
const http = require("node:http");
const http2 = require("node:http2");

const HOST = process.env.ECHO_SERVICE_HOST;
const PORT = process.env.ECHO_SERVICE_PORT;
const BASE = `http://${HOST}:${PORT}`;

function ask(options, ...pieces) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: HOST, port: PORT, ...options }, (response) => {
      let body = "";
      const port = response.socket.localPort;
      response.setEncoding("utf8");
      response.on("data", (data) => (body += data));
      response.on("end", () => resolve({ response, body, port }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.on("continue", () => request.end(...pieces));
    if (options.headers?.Expect === undefined) {
      for (const piece of pieces) request.write(piece);
      request.end();
    }
  });
}

async function withHttp() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set();
  for (let n = 0; n < 20; n++) {
    const { response, body, port } = await ask({ agent, path: `/n/${n}`, headers: { "X-Number": n } });
    assert.strictEqual(response.statusCode, 200);
    const said = JSON.parse(body);
    assert.strictEqual(said.path, `/n/${n}`);
    assert.ok(said.headers.some(([name, value]) => name === "X-Number" && value === `${n}`), body);
    ports.add(port);
  }
  assert.strictEqual(ports.size, 1, "one connection was kept for all");

  const chunked = await ask({ agent, method: "POST", path: "/upload" }, "one,", "two,", "three");
  assert.strictEqual(JSON.parse(chunked.body).body.length, 13);
  const expecting = await ask({ agent, method: "POST", path: "/upload", headers: { Expect: "100-continue" } }, "body");
  assert.strictEqual(JSON.parse(expecting.body).body.length, 4);
  const trailing = await ask({ agent, path: "/trailers", headers: { TE: "trailers", Connection: "keep-alive" } });
  assert.strictEqual(trailing.response.trailers["x-finished"], "yes");
  agent.destroy();
}

async function withFetch() {
  const said = await (await fetch(`${BASE}/fetched?q=1`, { headers: { "x-by": "fetch" } })).json();
  assert.strictEqual(said.query, "q=1");
  const body = new ReadableStream({
    start(controller) {
      for (let n = 0; n < 100; n++) controller.enqueue(new Uint8Array(10000).fill(n));
      controller.close();
    },
  });
  const sent = await fetch(`${BASE}/upload`, { method: "POST", body, duplex: "half" });
  assert.strictEqual((await sent.json()).body.length, 1000000);
  let received = 0;
  for await (const piece of (await fetch(`${BASE}/bytes/5000000`)).body) received += piece.length;
  assert.strictEqual(received, 5000000);
  // What is given up half-way leaves the next request alone.
  const given = new AbortController();
  const pending = fetch(`${BASE}/delay/600000`, { signal: given.signal });
  setTimeout(() => given.abort(), 100);
  await assert.rejects(pending, { name: "AbortError" });
  assert.strictEqual((await fetch(`${BASE}/after`)).status, 200);
}

async function withHttp2() {
  const session = http2.connect(BASE);
  const one = (n) =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ":path": `/n/${n}`, ":method": "POST" });
      let body = "";
      stream.on("error", reject);
      stream.on("data", (data) => (body += data));
      stream.on("end", () => resolve(JSON.parse(body)));
      stream.end("x".repeat(n));
    });
  const answers = await Promise.all([...Array(100).keys()].map(one));
  answers.forEach((said, n) => {
    assert.strictEqual(said.path, `/n/${n}`);
    assert.strictEqual(said.version, "HTTP/2.0");
    assert.strictEqual(said.body.length, n);
  });
  session.close();
}

(async () => {
  await withHttp();
  await withFetch();
  await withHttp2();
  console.log("done");
})();
