// An app on Node's own server, which closes what rests for a second. Usage: server.js, listening at HOST and PORT.
"use strict";
const http = require("node:http");

const server = http.createServer((request, response) => {
  let length = 0;
  request.on("data", (data) => (length += data.length));
  request.on("end", () => response.end(`${request.method} ${length}`));
});
server.keepAliveTimeout = 1000;
server.listen(process.env.PORT, process.env.HOST);
process.on("SIGTERM", () => server.close());
