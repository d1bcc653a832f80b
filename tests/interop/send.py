#!/usr/bin/env python3
"""Sends Web Push messages as an application server does.

It was written from the RFCs alone: messages are encrypted after RFC 8291 and
RFC 8188 (aes128gcm) by the `http_ece` package and posted after RFC 8030 with a
TTL, all on one HTTP/2 connection by the `h2` package.

    send.py --subscription FILE --ca FILE --ttl SECONDS TEXT...

FILE holds a PushSubscription in JSON. One line is printed for each message,
`message N: STATUS`. The exit code is 0 if each one was 201 (Created).
"""

import argparse
import base64
import json
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.settings
import http_ece
from cryptography.hazmat.primitives.asymmetric import ec

TIMEOUT = 20  # seconds, for anything the push service has to say


def base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encrypt(subscription, text):
    """The body of the request: one aes128gcm record for the keys of the subscription."""
    return http_ece.encrypt(
        text.encode(),
        salt=os.urandom(16),
        private_key=ec.generate_private_key(ec.SECP256R1()),  # a new one for each message
        dh=base64url(subscription["keys"]["p256dh"]),
        auth_secret=base64url(subscription["keys"]["auth"]),
        version="aes128gcm",
    )


class Client:
    """One HTTP/2 connection, with one request after the other."""

    def __init__(self, url, ca_file):
        self.url = urlsplit(url)
        if self.url.scheme != "https":
            sys.exit("send.py: the endpoint is not https")
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((self.url.hostname, self.url.port or 443), timeout=TIMEOUT)
        self.socket = context.wrap_socket(plain, server_hostname=self.url.hostname)
        if self.socket.selected_alpn_protocol() != "h2":
            sys.exit("send.py: the push service does not speak HTTP/2")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.ENABLE_PUSH: 0})
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            sys.exit("send.py: the push service closed the connection")
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                sys.exit("send.py: the push service ended the connection")
        self.flush()
        return events

    def post(self, body, fields):
        """Posts to the push resource; the status, and the header fields of the response."""
        path = self.url.path + ("?" + self.url.query if self.url.query else "")
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", self.url.netloc), (":path", path)]
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, pseudo + fields + [("content-length", str(len(body)))])
        status, headers = None, {}
        while True:
            while body is not None:
                size = min(len(body), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if size == 0 < len(body):
                    break
                last = size == len(body)
                self.h2.send_data(stream, body[:size], end_stream=last)
                body = None if last else body[size:]
            self.flush()
            for event in self.receive():
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    headers = dict(event.headers)
                    status = int(headers[":status"])
                elif isinstance(event, h2.events.StreamEnded):
                    return status, headers
                elif isinstance(event, h2.events.StreamReset):
                    return status, headers

    def close(self):
        self.h2.close_connection()
        self.flush()
        self.socket.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subscription", required=True, metavar="FILE", help="PushSubscription in JSON")
    parser.add_argument("--ca", required=True, metavar="FILE", help="certification authority in PEM")
    parser.add_argument("--ttl", required=True, type=int, metavar="SECONDS")
    parser.add_argument("text", nargs="+", metavar="TEXT")
    options = parser.parse_args()

    with open(options.subscription, encoding="utf-8") as file:
        subscription = json.load(file)
    client = Client(subscription["endpoint"], options.ca)
    fields = [
        ("ttl", str(options.ttl)),
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
    ]
    failed = 0
    for number, text in enumerate(options.text, 1):
        status, headers = client.post(encrypt(subscription, text), fields)
        shorter = f", kept for {headers['ttl']} s" if "ttl" in headers else ""
        print(f"message {number}: {status or 'reset'}{shorter}", flush=True)
        failed += status != 201 or "location" not in headers
    client.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
