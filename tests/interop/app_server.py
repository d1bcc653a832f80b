#!/usr/bin/env python3
"""A small application server that is told where to post to devices, to test gateways with.

It was written from what README.md says to application servers alone, on the http.server and ssl of Python's library, and
shares no code with any gateway that it tests. It listens on a loopback address, over HTTP/1.1 and TLS, with a throw-away
certification authority.

    app_server.py --token TOKEN --folder FOLDER [--refuse N] [--name HOST]

It keeps the newest subscription of each device and channel in FOLDER, as DEVICE.CHANNEL.json, and removes the file when
there is none any more. It answers the first N requests with 503. HOST is the name under which gateways reach it, if that is
not 127.0.0.1. The first line on standard output says where it listens and which certification authority to verify it with:

    listening https://HOST:PORT/devices ca=PATH

Then comes one JSON object a line for each request: what it was about and how it was answered, and nothing secret.
"""

import argparse
import base64
import http.server
import json
import os
import pathlib
import ssl
import tempfile

from push_service import make_certificates

PATH = "/devices"
MAX_BODY = 4096


class Wrong(Exception):
    """A request that is not as it should be."""


def require(condition, problem):
    if not condition:
        raise Wrong(problem)


def octets(text):
    require(isinstance(text, str) and "=" not in text, "a key is no base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def read_document(body):
    """What a body is about: device, channel, and whether there is a subscription."""
    document = json.loads(body)
    require(isinstance(document, dict), "the body is no object")
    require(isinstance(document.get("device"), str) and document["device"], "there is no device")
    require(type(document.get("channel")) is int and 0 < document["channel"] < 65536, "there is no channel")
    require("endpoint" in document, "there is no endpoint")
    members = {"device", "channel", "endpoint"}
    if document["endpoint"] is not None:
        require(str(document["endpoint"]).startswith("https://"), "the endpoint is not https")
        public, auth = (octets(document["keys"][name]) for name in ("p256dh", "auth"))
        require(len(public) == 65 and public[0] == 4, "p256dh is no point")
        require(len(auth) == 16, "auth has not 16 octets")
        members |= {"keys", "expirationTime"}
    require(set(document) <= members, "there are members that nobody knows")
    return document["device"], document["channel"], document["endpoint"] is not None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        try:
            body = self.read_body()
            event = self.server.judge(body)
        except (Wrong, ValueError, KeyError, TypeError) as error:
            event = {"status": 400, "problem": str(error)}
        # First said, then done: who sees the file finds the line.
        print(json.dumps(event), flush=True)
        if event["status"] == 201:
            self.server.keep(event, body)
        self.send_response(event["status"])
        if event["status"] == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_body(self):
        fields = self.headers
        require(self.request_version == "HTTP/1.1", "not HTTP/1.1")
        require(self.path == PATH, "another path")
        require(fields.get_all("Host") == [f"{self.server.name}:{self.server.server_port}"], "another host")
        require(fields.get_all("Content-Type") == ["application/json"], "no JSON")
        require(fields.get_all("Authorization") == [f"Bearer {self.server.token}"], "no token")
        require("Transfer-Encoding" not in fields, "a transfer encoding")
        length = int(fields["Content-Length"])
        require(length <= MAX_BODY, "too long")
        return self.rfile.read(length)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, name, token, folder, refuse):
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.token, self.folder, self.refuse = name, token, folder, refuse

    def judge(self, body):
        device, channel, is_there = read_document(body)
        is_refused = self.refuse > 0
        self.refuse -= is_refused
        return {"device": device, "channel": channel, "is_there": is_there, "status": 503 if is_refused else 201}

    def keep(self, event, body):
        path = os.path.join(self.folder, f"{event['device']}.{event['channel']}.json")
        if not event["is_there"]:
            # An end may come twice.
            pathlib.Path(path).unlink(missing_ok=True)
            return
        with open(path + ".new", "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(body)
        os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description="Be told where to post to devices.")
    parser.add_argument("--token", required=True, help="what requests must show")
    parser.add_argument("--folder", required=True, help="where subscriptions are kept")
    parser.add_argument("--refuse", type=int, default=0, metavar="N", help="refuse the first N requests")
    parser.add_argument("--name", metavar="HOST", help="what gateways call it, if not 127.0.0.1")
    options = parser.parse_args()
    name = options.name or "127.0.0.1"
    with tempfile.TemporaryDirectory() as certificates:
        ca, chain = make_certificates(pathlib.Path(certificates), *filter(None, [options.name]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server = Server(name, options.token, options.folder, options.refuse)
        # The handshake belongs to the thread of the connection.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        print(f"listening https://{name}:{server.server_port}{PATH} ca={ca}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
