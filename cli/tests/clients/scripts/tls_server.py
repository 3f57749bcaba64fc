"""An app that speaks TLS itself. Usage: tls_server.py CERTIFICATE KEY, listening at HOST and PORT."""

import http.server
import os
import ssl
import sys


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.path} within the app's own TLS".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Server)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
