"""A program that knows nothing of ostler: serves on descriptor 3, and says who it is."""

import http.server
import json
import os
import socket
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
                           "sees": [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
                           }).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):  # pylint: disable=arguments-differ
        print("asked for", self.path, file=sys.stderr, flush=True)


server = http.server.HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
