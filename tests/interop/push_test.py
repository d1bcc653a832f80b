#!/usr/bin/env python3
"""Tests of `push.py` against a small HTTPS server on the loopback with a throw-away certificate.

It was written from the specification of the link protocol and the public standards alone. Run it with the Python of
an environment that holds the packages of requirements.txt: `python push_test.py`.
"""

import base64
import datetime
import http.server
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

import http_ece
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "push.py")


def base64url(octets):
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def new_certificate(folder, name):
    """A self-signed certificate for 127.0.0.1 and its key, as two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path = os.path.join(folder, f"{name}.pem")
    key_path = os.path.join(folder, f"{name}.key")
    with open(certificate_path, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    with open(key_path, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return certificate_path, key_path


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), self.request_version, body))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.send_response(status)
        if status == 201 and self.server.with_location:
            self.send_header("Location", f"https://127.0.0.1:{self.server.server_port}/message/1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_GET = handle_any

    def log_message(self, *_):
        pass


class PushTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.ca, key = new_certificate(self.folder, "server")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.requests = []
        self.server.statuses = [201]
        self.server.with_location = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        self.subscription = os.path.join(self.folder, "subscription.json")
        with open(self.subscription, "w", encoding="utf-8") as file:
            endpoint = f"https://127.0.0.1:{self.server.server_port}/push/abc"
            json.dump({"endpoint": endpoint, "keys": {"p256dh": base64url(point), "auth": base64url(self.auth)}}, file)

    def push(self, *texts, ca=None, ttl="60", vapid=()):
        options = ["--subscription", self.subscription, "--ca", ca or self.ca, "--ttl", ttl, *vapid]
        return subprocess.run(
            [sys.executable, PROGRAM, *options, *texts],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def decrypt(self, body):
        return http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm").decode()

    def test_messages(self):
        result = self.push("hello", "grüße", "x" * 3000, ttl="3600")
        self.assertEqual(result.stdout, "201 with Location\n" * 3)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([self.decrypt(request[4]) for request in self.server.requests], ["hello", "grüße", "x" * 3000])
        for method, path, headers, version, body in self.server.requests:
            headers = {name.lower(): value for name, value in headers.items()}
            self.assertEqual((method, path, version), ("POST", "/push/abc", "HTTP/1.1"))
            self.assertEqual(headers["ttl"], "3600")
            self.assertEqual(headers["content-encoding"], "aes128gcm")
            self.assertEqual(headers["content-length"], str(len(body)))
            self.assertNotIn("authorization", headers)

    def test_vapid(self):
        _, key = new_certificate(self.folder, "vapid")
        self.assertEqual(self.push("hello", vapid=["--vapid", key]).returncode, 0)
        headers = {name.lower(): value for name, value in self.server.requests[0][2].items()}
        self.assertRegex(headers["authorization"], r"^vapid t=[\w-]+\.[\w-]+\.[\w-]+, *k=[\w-]{87}")

    def test_ttl_zero(self):
        self.assertEqual(self.push("hello", ttl="0").returncode, 0)
        headers = {name.lower(): value for name, value in self.server.requests[0][2].items()}
        self.assertEqual(headers["ttl"], "0")

    def test_without_location(self):
        self.server.with_location = False
        result = self.push("hello")
        self.assertEqual((result.stdout, result.returncode), ("201 without Location\n", 0))

    def test_not_found(self):
        self.server.statuses = [404]
        result = self.push("hello")
        self.assertEqual((result.stdout, result.returncode), ("404 without Location\n", 1))

    def test_one_of_several_fails(self):
        self.server.statuses = [201, 413, 201]
        result = self.push("a", "b", "c")
        self.assertEqual(result.stdout, "201 with Location\n413 without Location\n201 with Location\n")
        self.assertEqual(result.returncode, 1)

    def test_only_201_will_do(self):
        self.server.statuses = [202]
        result = self.push("hello")
        self.assertEqual((result.stdout, result.returncode), ("202 without Location\n", 1))

    def test_unknown_certificate(self):
        other, _ = new_certificate(self.folder, "other")
        result = self.push("hello", ca=other)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, "^failed: ")
        self.assertEqual(self.server.requests, [])


if __name__ == "__main__":
    unittest.main()
