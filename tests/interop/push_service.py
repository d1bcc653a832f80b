#!/usr/bin/env python3
"""A small push service after RFC 8030, to test user agents with.

It was written from the RFCs alone (8030 for the protocol, 9113 for HTTP/2 and
server push, 8288 for links, 7240 for Prefer), on the `h2` package, and shares
no code with any user agent that it tests. All it knows is in memory, and it
listens on a loopback address with a throw-away certification authority.

    push_service.py [--link promise|response|both] [--link-form plain|odd]
                    [--uris relative|absolute] [--no-sets]
                    [--wait0 unacknowledged|unpushed]
                    [--retry SECONDS] [--count-file FILE]

The first line on standard output says where it listens and which certification
authority to verify it with:

    listening https://127.0.0.1:PORT/subscribe ca=PATH

Standard error gets one JSON object a line for each event. Resources have
numbers there, since their URIs are capabilities. SIGTERM or SIGINT ends it, as
does a line on standard input or its end if that is a pipe. The last line is an
event "summary" with the counts that --count-file always holds.
"""

import argparse
import asyncio
import datetime
import email.utils
import ipaddress
import itertools
import json
import os
import re
import secrets
import signal
import ssl
import stat
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

REL_PUSH = "urn:ietf:params:push"
REL_SET = "urn:ietf:params:push:set"
MAX_BODY = 4096  # RFC 8030 section 7.2: at least this must be accepted
MAX_TTL = 28 * 24 * 3600
URGENCIES = ["very-low", "low", "normal", "high"]


# ---------------------------------------------------------------- header fields


def parse_links(values, base):
    """The links of all Link fields as (URI, set of relation types), RFC 8288."""
    link = re.compile(
        r"""\s*<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"(?:\\.|[^"\\])*"|[^\s;,"]*))?)*)\s*(?:,|$)"""
    )
    param = re.compile(r""";\s*([^\s=;,]+)(?:\s*=\s*("(?:\\.|[^"\\])*"|[^\s;,"]*))?""")
    found = []
    for value in values:
        for target, params in link.findall(value):
            relations = set()
            for name, text in param.findall(params):
                if name.lower() == "rel" and not relations:  # only the first one counts
                    text = re.sub(r"\\(.)", r"\1", text.strip('"'))
                    relations = {relation.lower() for relation in text.split()}
            found.append((urljoin(base, target), relations))
    return found


def parse_prefer(values):
    """The preferences of all Prefer fields as a dictionary, RFC 7240."""
    preferences = {}
    for value in values:
        for preference in value.split(","):
            name, _, text = preference.split(";")[0].partition("=")
            preferences.setdefault(name.strip().lower(), text.strip().strip('"'))
    return preferences


def http_date(timestamp):
    return email.utils.formatdate(timestamp, usegmt=True)


# -------------------------------------------------------------------- resources


class SubscriptionSet:
    def __init__(self, number, path):
        self.number, self.path = number, path
        self.subscriptions = {}  # path: Subscription

    def messages(self):
        """Messages of all its subscriptions, oldest first."""
        every = (m for s in self.subscriptions.values() for m in s.stored.values())
        return sorted(every, key=lambda message: message.number)


class Subscription:
    def __init__(self, number, path, push_path, in_set):
        self.number, self.path, self.push_path, self.in_set = number, path, push_path, in_set
        self.stored = {}  # path: Message

    def messages(self):
        return list(self.stored.values())


class Message:
    def __init__(self, number, path, subscription, body, fields, ttl, topic, urgency):
        self.number, self.path, self.subscription = number, path, subscription
        self.body, self.fields = body, fields
        self.topic, self.urgency = topic, urgency
        self.created = time.time()
        self.now_or_never = ttl == 0  # it goes to whoever is there now, or to nobody
        self.expires = time.monotonic() + ttl
        self.pushed_on = None  # the connection that it was pushed on and that may acknowledge it
        self.refused = False  # the user agent reset the pushed stream
        self.retry = None  # timer

    def expired(self):
        return not self.now_or_never and time.monotonic() >= self.expires


class Service:
    """All resources and the connections, and what happens between them."""

    def __init__(self, options):
        self.options = options
        self.origin = None
        self.subscriptions, self.push_resources = {}, {}
        self.sets, self.messages = {}, {}
        self.connections = []  # newest first
        self.numbers = {kind: itertools.count(1) for kind in ("connection", "set", "subscription", "message")}
        self.counts = dict.fromkeys(
            ("connections", "monitoring_connections", "subscriptions", "messages", "pushed", "acknowledged"), 0
        )
        self.write_counts()

    # -- what the outside sees

    def log(self, event, **fields):
        print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)

    def count(self, name):
        self.counts[name] += 1
        self.write_counts()

    def write_counts(self):
        if self.options.count_file:
            partial = self.options.count_file + ".new"
            Path(partial).write_text(json.dumps(self.counts) + "\n")
            os.replace(partial, self.options.count_file)

    def reference(self, path):
        return self.origin + path if self.options.uris == "absolute" else path

    def link_fields(self, *links):
        """Link fields for pairs of path and relation type."""
        if self.options.link_form == "plain":
            return [("link", f'<{self.reference(path)}>; rel="{relation}"') for path, relation in links]
        # Everything in one field, with what RFC 8288 allows: other links around it, a title with
        # delimiters in it, white space, several relation types, and these in another case.
        values = ['</help?a,b;c>; title="x, <y>; rel=\\"z\\""; rel="help"']
        for path, relation in links:
            values.append(f'<{self.reference(path)}> ;title="a;b,c" ; Rel = "related {relation.upper()}"')
        return [("link", " , ".join(values))]

    def new(self, kind):
        return next(self.numbers[kind]), f"/{kind[0]}/{secrets.token_urlsafe(16)}"

    # -- subscriptions and sets

    def subscribe(self, wanted_set):
        in_set = None
        if not self.options.no_sets:
            in_set = self.sets.get(wanted_set)
            if in_set is None:
                in_set = SubscriptionSet(*self.new("set"))
                self.sets[in_set.path] = in_set
        subscription = Subscription(*self.new("subscription"), f"/p/{secrets.token_urlsafe(16)}", in_set)
        self.subscriptions[subscription.path] = subscription
        self.push_resources[subscription.push_path] = subscription
        if in_set:
            in_set.subscriptions[subscription.path] = subscription
        self.count("subscriptions")
        self.log("subscribed", subscription=subscription.number, set=in_set and in_set.number)
        return subscription

    def unsubscribe(self, subscription):
        for message in subscription.messages():
            self.drop(message)
        del self.subscriptions[subscription.path], self.push_resources[subscription.push_path]
        if subscription.in_set:
            del subscription.in_set.subscriptions[subscription.path]
        self.log("unsubscribed", subscription=subscription.number)
        self.end_monitors(subscription)

    def remove_set(self, in_set):
        del self.sets[in_set.path]
        for subscription in list(in_set.subscriptions.values()):
            self.unsubscribe(subscription)
        self.log("set_removed", set=in_set.number)
        self.end_monitors(in_set)

    def end_monitors(self, target):
        for connection in self.connections:
            connection.end_monitors(target)

    # -- messages

    def accept(self, subscription, body, fields, ttl, topic, urgency):
        if topic is not None:  # RFC 8030 section 5.4: takes the place of the one with this topic
            for other in subscription.messages():
                if other.topic == topic:
                    self.log("replaced", message=other.number)
                    self.drop(other)
        message = Message(*self.new("message"), subscription, body, fields, ttl, topic, urgency)
        self.messages[message.path] = subscription.stored[message.path] = message
        self.count("messages")
        self.log("stored", message=message.number, subscription=subscription.number, octets=len(body))
        return message

    def drop(self, message):
        if message.retry:
            message.retry.cancel()
        self.messages.pop(message.path, None)
        message.subscription.stored.pop(message.path, None)

    def acknowledge(self, message):
        self.drop(message)
        self.count("acknowledged")
        self.log("acknowledged", message=message.number)

    def pump(self):
        """Push what is to be pushed, on the newest connection that monitors for it."""
        for connection in list(self.connections):
            connection.pump()
        for message in list(self.messages.values()):
            if message.pushed_on is None and (message.now_or_never or message.expired()):
                self.log("expired", message=message.number)
                self.drop(message)

    def pushed(self, message, connection):
        message.pushed_on, message.refused = connection, False
        if message.retry:
            message.retry.cancel()
        message.retry = asyncio.get_running_loop().call_later(self.options.retry, self.not_delivered, message)
        self.count("pushed")
        self.log("pushed", message=message.number, connection=connection.number)

    def not_delivered(self, message):
        """No acknowledgement within a reasonable time."""
        if self.messages.get(message.path) is message:
            self.log("not_delivered", message=message.number)
            self.again(message)
            self.pump()

    def again(self, message):
        """It is to be pushed again, or never."""
        message.pushed_on = None
        if message.now_or_never:
            self.drop(message)

    def connection_lost(self, connection):
        for message in list(self.messages.values()):
            if message.pushed_on is connection:
                self.again(message)
        self.pump()


# ------------------------------------------------------------------- connections


class Monitor:
    """A GET on a subscription or a set that is not answered yet."""

    def __init__(self, stream, target, authority, once, urgency):
        self.stream, self.target, self.authority = stream, target, authority
        self.once, self.urgency = once, urgency
        self.pushes = 0

    def pending(self):
        lowest = URGENCIES.index(self.urgency)
        for message in self.target.messages():
            if message.pushed_on is None and not message.expired() and URGENCIES.index(message.urgency) >= lowest:
                yield message


class Request:
    def __init__(self, headers):
        self.pseudo = {name: value for name, value in headers if name.startswith(":")}
        self.headers = [(name, value) for name, value in headers if not name.startswith(":")]
        self.body = bytearray()

    def all(self, name):
        return [value for field, value in self.headers if field == name]

    def one(self, name):
        values = self.all(name)
        return values[0] if len(values) == 1 else None


class Connection(asyncio.Protocol):
    def __init__(self, service):
        self.service = service
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests, self.monitors = {}, {}  # by stream
        self.bodies = {}  # stream: octets that flow control has not let through yet
        self.push_streams = {}  # stream: Message, promised and not yet ended
        self.closed = self.paused = False
        self.monitoring = False

    # -- asyncio.Protocol

    def connection_made(self, transport):
        self.transport = transport
        self.number = next(self.service.numbers["connection"])
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            self.service.log("refused_connection", reason="ALPN is not h2")
            self.closed = True
            transport.close()
            return
        self.service.connections.insert(0, self)
        self.service.count("connections")
        self.service.log("connected", connection=self.number)
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, reason):
        self.closed = True
        if self in self.service.connections:
            self.service.connections.remove(self)
            self.service.log("disconnected", connection=self.number)
            self.service.connection_lost(self)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.flush()
        self.pump()

    def data_received(self, data):
        try:
            for event in self.h2.receive_data(data):
                self.handle(event)
        except h2.exceptions.ProtocolError as error:
            self.service.log("protocol_error", connection=self.number, reason=type(error).__name__)
            self.flush()
            self.transport.close()
            return
        self.flush()
        self.service.pump()

    # -- HTTP/2

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = Request(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            request = self.requests.get(event.stream_id)
            if request and len(request.body) <= MAX_BODY:
                request.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            request = self.requests.pop(event.stream_id, None)
            if request:
                self.answer(event.stream_id, request)
        elif isinstance(event, h2.events.StreamReset):
            self.reset(event.stream_id, event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.service.log("goaway", connection=self.number, code=int(event.error_code))
            self.closed = True
            self.transport.close()

    def reset(self, stream, code):
        self.requests.pop(stream, None)
        self.bodies.pop(stream, None)
        if self.monitors.pop(stream, None):
            self.service.log("monitor_cancelled", connection=self.number, code=int(code))
        message = self.push_streams.pop(stream, None)
        if message:
            message.refused = True
            self.service.log("refused", message=message.number, code=int(code))

    def flush(self):
        """Send what flow control allows."""
        if self.closed:
            return
        for stream in list(self.bodies):
            while not self.paused:
                body = self.bodies[stream]
                size = min(len(body), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if size <= 0 < len(body):
                    break
                last = size == len(body)
                self.h2.send_data(stream, bytes(body[:size]), end_stream=last)
                self.bodies[stream] = body[size:]
                self.transport.write(self.h2.data_to_send())  # this may call pause_writing
                if last:
                    del self.bodies[stream]
                    self.push_streams.pop(stream, None)
                    break
        data = self.h2.data_to_send()
        if data:
            self.transport.write(data)

    def respond(self, stream, status, *fields):
        headers = [(":status", str(status)), ("date", http_date(time.time())), *fields]
        self.h2.send_headers(stream, headers, end_stream=True)

    # -- RFC 8030

    def answer(self, stream, request):
        service = self.service
        method, path = request.pseudo[":method"], urlsplit(request.pseudo[":path"]).path
        if path == "/subscribe":
            if method != "POST":
                return self.respond(stream, 405, ("allow", "POST"))
            return self.subscribe(stream, request)
        if path in service.push_resources:
            if method != "POST":
                return self.respond(stream, 405, ("allow", "POST"))
            return self.post(stream, request, service.push_resources[path])
        if path in service.messages:
            if method != "DELETE":
                return self.respond(stream, 405, ("allow", "DELETE"))
            service.acknowledge(service.messages[path])
            return self.respond(stream, 204)
        target = service.subscriptions.get(path) or service.sets.get(path)
        if target is None:
            service.log("not_found", method=method)
            return self.respond(stream, 404)
        if method == "DELETE":
            self.respond(stream, 204)
            return service.unsubscribe(target) if path in service.subscriptions else service.remove_set(target)
        if method != "GET":
            return self.respond(stream, 405, ("allow", "GET, DELETE"))
        return self.monitor(stream, request, target)

    def subscribe(self, stream, request):
        wanted = None
        for uri, relations in parse_links(request.all("link"), self.service.origin + "/subscribe"):
            if REL_SET in relations:
                wanted = urlsplit(uri).path
        subscription = self.service.subscribe(wanted)
        links = [(subscription.push_path, REL_PUSH)]
        if subscription.in_set:
            links.append((subscription.in_set.path, REL_SET))
        location = ("location", self.service.reference(subscription.path))
        self.respond(stream, 201, *self.service.link_fields(*links), location)
        self.now_monitoring()

    def post(self, stream, request, subscription):
        ttl, topic, urgency = request.one("ttl"), request.one("topic"), request.one("urgency") or "normal"
        if ttl is None or not re.fullmatch("[0-9]+", ttl):
            return self.respond(stream, 400)
        if request.all("topic") and not re.fullmatch("[A-Za-z0-9_-]{1,32}", topic or ""):
            return self.respond(stream, 400)
        if urgency not in URGENCIES:
            return self.respond(stream, 400)
        if len(request.body) > MAX_BODY:
            return self.respond(stream, 413)
        kept = [(n, v) for n, v in request.headers if n in ("content-type", "content-encoding")]
        seconds = min(int(ttl), MAX_TTL)
        message = self.service.accept(subscription, bytes(request.body), kept, seconds, topic, urgency)
        shorter = [("ttl", str(seconds))] if seconds < int(ttl) else []
        return self.respond(stream, 201, ("location", self.service.reference(message.path)), *shorter)

    def monitor(self, stream, request, target):
        once = parse_prefer(request.all("prefer")).get("wait") == "0"
        urgency = request.one("urgency")
        urgency = urgency if urgency in URGENCIES else URGENCIES[0]
        # What was refused was not delivered, and a new request is the time to try it again, as it
        # is for what only another connection has seen. RFC 8030 section 6 wants an answer to wait=0
        # to have everything that is not delivered yet. Whether that is so for a message which waits
        # for its acknowledgement, it leaves open.
        every = once and self.service.options.wait0 == "unacknowledged"
        still_pushed = self.push_streams.values()
        for message in target.messages():
            unseen = message.refused or message.pushed_on not in (None, self)
            if unseen or (every and message not in still_pushed):
                self.service.again(message)
        kind = "set" if isinstance(target, SubscriptionSet) else "subscription"
        self.service.log("monitoring", connection=self.number, **{kind: target.number}, wait=0 if once else None)
        self.monitors[stream] = Monitor(stream, target, request.pseudo.get(":authority", ""), once, urgency)
        self.now_monitoring()

    def now_monitoring(self):
        if not self.monitoring:
            self.monitoring = True
            self.service.count("monitoring_connections")

    def end_monitors(self, target):
        for stream, monitor in list(self.monitors.items()):
            if monitor.target is target:
                del self.monitors[stream]
                self.respond(stream, 410)
        self.flush()

    def may_push(self):
        return (
            not (self.closed or self.paused)
            and self.h2.remote_settings.enable_push
            and len(self.push_streams) < self.h2.remote_settings.max_concurrent_streams
        )

    def pump(self):
        for stream, monitor in list(self.monitors.items()):
            for message in monitor.pending():
                if not self.may_push():
                    return
                self.push(monitor, message)
            if monitor.once:
                del self.monitors[stream]
                self.respond(stream, 200 if monitor.pushes else 204)
                self.flush()

    def push(self, monitor, message):
        # The link says which subscription the message is for.
        link = self.service.link_fields((message.subscription.push_path, REL_PUSH))
        promise = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", monitor.authority),
            (":path", message.path),
        ]
        response = [
            (":status", "200"),
            ("date", http_date(time.time())),
            ("last-modified", http_date(message.created)),
            ("cache-control", "private"),
            *message.fields,
            ("content-length", str(len(message.body))),
        ]
        if self.service.options.link in ("promise", "both"):
            promise += link
        if self.service.options.link in ("response", "both"):
            response += link
        promised = self.h2.get_next_available_stream_id()
        self.h2.push_stream(monitor.stream, promised, promise)
        self.h2.send_headers(promised, response, end_stream=not message.body)
        if message.body:
            self.push_streams[promised] = message
            self.bodies[promised] = memoryview(message.body)
        monitor.pushes += 1
        self.service.pushed(message, self)
        self.flush()


# --------------------------------------------------------------------- certificate


def make_certificates(folder, *more_names):
    """A certification authority and a certificate for 127.0.0.1 and more names, as (ca, chain and key)."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(**on):
        every = (
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
            "key_cert_sign crl_sign encipher_only decipher_only"
        ).split()
        return x509.KeyUsage(**{bit: on.get(bit, False) for bit in every})

    def builder(subject, public_key):
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("throw-away authority"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    ca = (
        builder("throw-away authority", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost"), *map(x509.DNSName, more_names)]
    leaf = (
        builder("push service under test", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    ca_file, chain_file = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(ca.public_bytes(pem))
    chain_file.touch(mode=0o600)
    chain_file.write_bytes(private + leaf.public_bytes(pem))
    return ca_file, chain_file


# ---------------------------------------------------------------------------- main


async def serve(options, folder):
    service = Service(options)
    ca_file, chain_file = make_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain_file)
    context.set_alpn_protocols(["h2"])

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", options.port, ssl=context)
    service.origin = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, done.set)
    print(f"listening {service.origin}/subscribe ca={ca_file}", flush=True)

    await done.wait()
    server.close()
    for connection in list(service.connections):
        connection.closed = True
        connection.h2.close_connection()
        connection.transport.write(connection.h2.data_to_send())
        connection.transport.close()
    await asyncio.sleep(0.1)
    service.log("summary", **service.counts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 [any that is free]")
    parser.add_argument("--link", choices=["promise", "response", "both"], default="both",
                        help="where a push has the link to its push resource [both]")
    parser.add_argument("--link-form", choices=["plain", "odd"], default="plain",
                        help="odd: all links in one field, as unusual as RFC 8288 allows [plain]")
    parser.add_argument("--uris", choices=["relative", "absolute"], default="relative",
                        help="form of the URIs in Location and Link [relative]")
    parser.add_argument("--no-sets", action="store_true", help="have no subscription sets")
    parser.add_argument("--retry", type=float, default=60, metavar="SECONDS",
                        help="push again what is not acknowledged after so long [60]")
    parser.add_argument("--wait0", choices=["unacknowledged", "unpushed"], default="unacknowledged",
                        help="what wait=0 brings: all that is not acknowledged, or only what was not pushed "
                        "on this connection yet [unacknowledged]")
    parser.add_argument("--count-file", metavar="FILE", help="JSON file that always holds the counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="push-service-") as folder:
        asyncio.run(serve(options, Path(folder)))


if __name__ == "__main__":
    main()
