#!/usr/bin/env python3
"""A user agent and its application server, to test a push service with.

It was written from the RFCs alone (8030 for the protocol, 9113 for HTTP/2 and
server push, 8288 for links, 7240 for Prefer), on the `h2` package, and shares
no code with any push service. The application server posts by HTTP/1.1, with
what comes with Python. Besides an agent that behaves there are some that state
small limits, keep their windows shut, refuse what is promised, or do not read.

    user_agent.py --url URL --ca FILE [receipts] [topics] [strict]

One line is printed for each check. The exit code is 0 if all of them passed.
`receipts` and `topics` add the checks of RFC 8030 sections 5.1, 6.3 and 5.4,
`strict` those that take the RFCs by their letter where a service may have limits.
"""

import argparse
import http.client
import os
import re
import socket
import ssl
import sys
import time
from urllib.parse import urljoin, urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from h2.settings import SettingCodes

PUSH = "urn:ietf:params:push"
SET = "urn:ietf:params:push:set"
RECEIPT = "urn:ietf:params:push:receipt"
SOON = 5  # seconds, for anything that has to come
QUIET = 1  # seconds in which nothing may come
MOST_PROMISES = 32  # not ended at a time, to an agent that states no limit

passed, failed = 0, 0
url, ca = None, None


# ----------------------------------------------------------------------- checks


class Missing(Exception):
    """What the following checks need did not come."""


def holds(text, condition, came=""):
    """One check that passes if the condition is true."""
    global passed, failed
    if condition:
        passed += 1
        print(f"ok      python: {text}", flush=True)
    else:
        failed += 1
        print(f"FAILED  python: {text}{f': {came}' if came != '' else ''}", flush=True)
    return condition


def equal(text, wanted, came):
    return holds(text, wanted == came, f"{came!r} instead of {wanted!r}")


def needs(text, condition, came=""):
    """A check without which the rest of its group makes no sense."""
    if not holds(text, condition, came):
        raise Missing(text)


# ----------------------------------------------------------------- header fields


def values(fields, name):
    return [value for field, value in fields if field.lower() == name]


def value(fields, name):
    """All of a header field in one, None if there is none."""
    return ", ".join(values(fields, name)) if values(fields, name) else None


def links(fields, relation):
    """Targets of the links with this relation type, as URIs; RFC 8288."""
    found = []
    for target, parameters in re.findall(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^\s;,"]*))?)*)',
                                         value(fields, "link") or ""):
        relations = re.search(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]*))', parameters, re.IGNORECASE)
        if relations and relation in (relations[1] or relations[2]).lower().split():
            found.append(urljoin(url, target))
    return found


def path_of(uri):
    split = urlsplit(uri)
    return split.path + ("?" + split.query if split.query else "")


# -------------------------------------------------------------- application server


class Answer:
    def __init__(self, status, fields, content=b""):
        self.status, self.fields, self.content = status, fields, content
        location = value(fields, "location")
        self.location = urljoin(url, location) if location else None


def plain(method, uri, fields=(), content=None):
    """A request by HTTP/1.1 on a connection of its own."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    split = urlsplit(uri)
    connection = http.client.HTTPSConnection(split.hostname, split.port or 443, context=context, timeout=SOON)
    try:
        connection.putrequest(method, path_of(uri), skip_accept_encoding=True)
        for name, text in fields:
            connection.putheader(name, text)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def post(push, content=b"hello", ttl=60, fields=(), wanted=201):
    """Sends a message; its URI. Only a failure is worth a line."""
    answer = plain("POST", push, [("TTL", str(ttl)), *fields], content)
    if answer.status != wanted or not answer.location:
        needs(f"a message is taken with {wanted}", False, f"{answer.status}, location {answer.location}")
    return answer.location


# --------------------------------------------------------------------- user agent


class Stream:
    def __init__(self, promised=None, parent=None, method=None):
        self.method = method
        self.promised, self.parent = promised, parent  # fields of the promise, stream that it came on
        self.fields, self.content = None, b""
        self.ended, self.reset = False, None

    @property
    def status(self):
        return int(value(self.fields, ":status")) if self.fields else None

    @property
    def open(self):
        return not self.ended and self.reset is None

    @property
    def path(self):
        return value(self.promised, ":path")


class Agent:
    """One HTTP/2 connection of a user agent.

    `settings` are stated in the preface besides those that h2 states; None leaves one out. `windows` are opened as
    content is read, or not at all. `acknowledge` deletes each message as soon as all of it came. `refuse` resets each
    stream that is promised; with windows shut, since what has ended cannot be reset."""

    def __init__(self, settings=None, windows=True, acknowledge=False, refuse=False):
        self.windows, self.acknowledge, self.refuse = windows, acknowledge, refuse
        self.streams, self.promises, self.most_open, self.most_answered = {}, [], 0, 0
        self.settings_acknowledged, self.gone = 0, None
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        split = urlsplit(url)
        self.socket = context.wrap_socket(
            socket.create_connection((split.hostname, split.port or 443), timeout=SOON),
            server_hostname=split.hostname)
        if self.socket.selected_alpn_protocol() != "h2":
            raise Missing("the service speaks HTTP/2")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        stated = {SettingCodes.MAX_CONCURRENT_STREAMS: 100, SettingCodes.MAX_HEADER_LIST_SIZE: 65536}
        stated.update(settings or {})
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={code: number for code, number in stated.items() if number is not None})
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.settimeout(SOON)
            self.socket.sendall(data)

    def send(self, method, uri, fields=()):
        """Sends a request without content; its stream."""
        number = self.h2.get_next_available_stream_id()
        split = urlsplit(uri)
        self.h2.send_headers(number, [
            (":method", method), (":scheme", "https"), (":authority", split.netloc), (":path", path_of(uri)),
            *fields], end_stream=True)
        self.streams[number] = Stream(method=method)
        self.flush()
        return self.streams[number]

    def request(self, method, uri, fields=()):
        """Sends a request and waits for its response."""
        stream = self.send(method, uri, fields)
        if not self.wait(lambda: not stream.open):
            raise Missing(f"a response to {method}")
        return Answer(stream.status, stream.fields or [], stream.content)

    def monitor(self, uri, fields=()):
        """Opens a monitoring request, and waits until the service certainly has it."""
        stream = self.send("GET", uri, fields)
        self.h2.ping(os.urandom(8))
        self.pong = False
        self.flush()
        self.wait(lambda: self.pong)
        return stream

    def wait(self, condition, seconds=SOON):
        """Reads until the condition is true; false if it was not in this time."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0 or self.gone:
                return False
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                self.gone = "closed"
                continue
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.flush()
        return True

    def quiet(self, seconds=QUIET):
        """Reads for this long; true if nothing was promised in this time."""
        before = len(self.promises)
        self.wait(lambda: False, seconds)
        return len(self.promises) == before

    def handle(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.PushedStreamReceived):
            stream = Stream(event.headers, self.streams[event.parent_stream_id])
            self.streams[event.pushed_stream_id] = stream
            self.promises.append(stream)
            if self.refuse:
                self.h2.reset_stream(event.pushed_stream_id, h2.errors.ErrorCodes.CANCEL)
                stream.reset = "refused"
            self.most_open = max(self.most_open, len(self.unended()))
        elif isinstance(event, h2.events.ResponseReceived):
            stream.fields = event.headers
            answered = [other for other in self.unended() if other.fields]
            self.most_answered = max(self.most_answered, len(answered))
        elif isinstance(event, h2.events.DataReceived):
            stream.content += event.data
            if self.windows:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
            if self.acknowledge and stream.promised:
                self.send("DELETE", urljoin(url, stream.path))
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = stream.reset or event.error_code
        elif isinstance(event, h2.events.PingAckReceived):
            self.pong = True
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.settings_acknowledged += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone = f"GOAWAY {event.error_code}"

    def unended(self):
        return [stream for stream in self.promises if stream.open]

    def whole(self):
        """Promised streams of which all came."""
        return [stream for stream in self.promises if stream.ended]

    def comes(self, *uris, seconds=SOON):
        """Waits until these have come whole; true if they did."""
        paths = {path_of(uri) for uri in uris}
        return self.wait(lambda: paths <= {stream.path for stream in self.whole()}, seconds)

    def promised(self, uri):
        return next((stream for stream in self.promises if stream.path == path_of(uri)), None)

    def deleted(self, count):
        """Waits until so many acknowledgements are answered; true if all were 204."""
        requests = [stream for stream in self.streams.values() if stream.method == "DELETE"]
        return len(requests) == count and self.wait(lambda: not any(stream.open for stream in requests)) and all(
            stream.status == 204 for stream in requests)

    def open_window(self, stream, octets):
        number = next(number for number, other in self.streams.items() if other is stream)
        self.h2.increment_flow_control_window(octets, number)
        self.flush()


class Subscription:
    def __init__(self, agent, in_set=None):
        fields = [("link", f'<{path_of(in_set)}>; rel="{SET}"')] if in_set else []
        self.answer = agent.request("POST", url, fields)
        self.uri = self.answer.location
        if self.answer.status != 201 or not self.uri or not links(self.answer.fields, PUSH):
            needs("a subscription is made", False, f"{self.answer.status} {self.answer.fields}")
        self.push = links(self.answer.fields, PUSH)[0]
        self.set = (links(self.answer.fields, SET) or [None])[0]


def stored(uri):
    """What a new agent gets by `wait=0`: the paths, in order of the promises."""
    with Agent() as agent:
        answer = agent.request("GET", uri, [("prefer", "wait=0")])
        agent.wait(lambda: not agent.unended())
        return answer.status, [stream.path for stream in agent.promises]


# ------------------------------------------------------------------------- groups


def trust():
    split = urlsplit(url)
    try:
        with socket.create_connection((split.hostname, split.port or 443), timeout=SOON) as raw:
            ssl.create_default_context().wrap_socket(raw, server_hostname=split.hostname).close()
        came = "trusted"
    except ssl.SSLCertVerificationError:
        came = "not trusted"
    equal("the service is not trusted without its authority", "not trusted", came)


def subscribe():
    with Agent() as agent:
        answer = agent.request("POST", url)
        equal("a subscription is made with 201 (8030 4)", 201, answer.status)
        needs("and has a location", answer.location, answer.fields)
        equal("and exactly one push resource", 1, len(links(answer.fields, PUSH)))
        equal("and exactly one set (4.1)", 1, len(links(answer.fields, SET)))
        equal("and no receipt subscription", [], links(answer.fields, RECEIPT))
        first = Subscription(agent)
        second = Subscription(agent, first.set)
        equal("a second one is made in the set of the first", first.set, second.set)
        holds("and has resources of its own", second.uri != first.uri and second.push != first.push)
        strange = agent.request("POST", url, [("link", f'</no/such/set>; rel="{SET}"')])
        equal("a set that is none is refused with 400 (4.1)", 400, strange.status)
        four = [first.uri, first.push, second.uri, second.push, first.set]
        long = all(len(path_of(uri).rpartition("/")[2]) >= 20 for uri in four)
        holds("paths have 120 bits at least (8.3)", long, four)


def monitor():
    content = bytes(range(256)) + os.urandom(2744)
    with Agent() as agent:
        one = Subscription(agent)
        stream = agent.monitor(one.uri)
        needs("a monitoring request is not answered while it is open (6)",
              agent.quiet() and not stream.fields, stream.fields)
        message = post(one.push, content, 60, [
            ("Content-Encoding", "aes128gcm"), ("Content-Type", "application/x-strange"), ("Urgency", "high"),
            ("Topic", "not-to-be-seen"), ("Authorization", "Bearer not-to-be-seen")])
        needs("a message comes by server push", agent.comes(message), agent.promises)
        push = agent.promises[0]
        holds("promised on the stream of the request", push.parent is stream)
        equal("by GET", "GET", value(push.promised, ":method"))
        equal("of https", "https", value(push.promised, ":scheme"))
        equal("with the authority of the request", urlsplit(url).netloc, value(push.promised, ":authority"))
        equal("of the message that the sender was told", path_of(message), push.path)
        holds("without content (9113 8.4)", value(push.promised, "content-length") in (None, "0"))
        equal("the pushed response is 200", 200, push.status)
        holds("with the content, octet for octet", push.content == content, f"{len(push.content)} octets")
        equal("content-encoding as it was sent", "aes128gcm", value(push.fields, "content-encoding"))
        equal("content-type as it was sent", "application/x-strange", value(push.fields, "content-type"))
        holds("content-length is right, if there is one", value(push.fields, "content-length") in (None, "3000"))
        equal("link of the push resource", [one.push], links(push.fields, PUSH))
        control = [part.strip() for part in (value(push.fields, "cache-control") or "").lower().split(",")]
        holds("private to this cache", "private" in control and "public" not in control, control)
        for name in ("ttl", "urgency", "topic", "authorization"):
            holds(f"no {name}", value(push.fields, name) is None and value(push.promised, name) is None)
        equal("the message came once", 1, len(agent.promises))
        holds("and the request is still open", stream.open and not stream.fields)

    with Agent() as again:
        again.monitor(one.uri)
        holds("what was not acknowledged comes again on a new connection (6.2)", again.comes(message))
        equal("it is acknowledged with 204", 204, again.request("DELETE", message).status)
        equal("and then it is gone", 404, again.request("DELETE", message).status)
        equal("it cannot be read either", 404, again.request("GET", message).status)
    with Agent() as last:
        stream = last.monitor(one.uri)
        holds("and does not come again on a new connection", last.quiet(), last.promises)
        message = post(one.push)
        holds("another one comes", last.comes(message))
        equal("the subscription is removed", 204, last.request("DELETE", one.uri).status)
        last.wait(lambda: not stream.open)
        equal("its open request is answered (7.3)", 404, stream.status)
        equal("nothing can be sent to it", 404, plain("POST", one.push, [("TTL", "60")], b"").status)
        equal("the stored message went with it", 404, last.request("GET", message).status)


def refused_messages():
    with Agent() as agent:
        one = Subscription(agent)
        equal("a message without TTL is refused with 400 (5.2)", 400, plain("POST", one.push, [], b"").status)
        equal("a TTL that is no number, too", 400, plain("POST", one.push, [("TTL", "soon")], b"").status)
        equal("as are two values of Urgency (5.3)", 400, plain(
            "POST", one.push, [("TTL", "60"), ("Urgency", "low, high")], b"").status)
        equal("and two fields of it", 400, plain(
            "POST", one.push, [("TTL", "60"), ("Urgency", "low"), ("Urgency", "high")], b"").status)
        equal("two values of it in a monitoring request, too", 400, agent.request(
            "GET", one.uri, [("urgency", "low, high")]).status)
        equal("a message is taken back by its sender with 204", 204, plain("DELETE", post(one.push)).status)
        message = post(one.push, os.urandom(4096))
        equal("4096 octets are taken, and nothing else was (7.2)", (200, [path_of(message)]), stored(one.uri))


def in_sets():
    with Agent() as agent:
        one = Subscription(agent)
        two = Subscription(agent, one.set)
        stream = agent.monitor(one.set)
        first, second = post(one.push, b"for one"), post(two.push, b"for two")
        needs("messages of both members of a set come (6.1)", agent.comes(first, second), agent.promises)
        for message, member, content in ((first, one, b"for one"), (second, two, b"for two")):
            push = agent.promised(message)
            equal("the promise itself has the link of the member, and no other",
                  [member.push], links(push.promised, PUSH))
            equal("the content is the one sent to it", content, push.content)
            holds("it was promised on the stream of the set", push.parent is stream)
        three = Subscription(agent, one.set)
        equal("a third member comes while the request is open", one.set, three.set)
        third = post(three.push, b"for three")
        needs("it is served on the open request", agent.comes(third))
        equal("with its link in the promise", [three.push], links(agent.promised(third).promised, PUSH))
        holds("the request is not answered", stream.open and not stream.fields)
        equal("a member is removed", 204, agent.request("DELETE", two.uri).status)
        holds("the others are served as before", agent.comes(post(one.push, b"on")))
        other = Subscription(agent)
        foreign = post(other.push, b"not here")
        holds("a subscription of another set is not", agent.quiet() and not agent.promised(foreign))
        equal("the set is removed", 204, agent.request("DELETE", one.set).status)
        agent.wait(lambda: not stream.open)
        equal("its open request is answered (7.3.1)", 404, stream.status)
        equal("its members are gone", 404, agent.request("GET", three.uri).status)


def without_waiting():
    with Agent() as agent:
        one = Subscription(agent)
        two = Subscription(agent, one.set)
    for name, resource in (("a subscription", one.uri), ("a set", one.set)):
        with Agent() as agent:
            stream = agent.send("GET", resource, [("prefer", "wait=0")])
            agent.wait(lambda: not stream.open)
            equal(f"wait=0 at {name} without messages: 204 (6)", 204, stream.status)
            holds("and no promise", not agent.promises and stream.ended)
    messages = [post((one, two)[number % 2].push, b"%d" % number) for number in range(6)]
    for name, resource, wanted in (("a subscription", one.uri, messages[::2]), ("a set", one.set, messages)):
        with Agent() as agent:
            stream = agent.send("GET", resource, [("prefer", "wait=0")])
            agent.wait(lambda: not stream.open)
            equal(f"wait=0 at {name} ends with 200", (200, True), (stream.status, stream.ended))
            equal("what is stored is promised, oldest first",
                  list(map(path_of, wanted)), [s.path for s in agent.promises])
            holds("and comes", agent.comes(*wanted))
            holds("with Last-Modified (7.2)", all(value(s.fields, "last-modified") for s in agent.promises))
    messages += [post((one, two)[number % 2].push, b"%d" % number) for number in range(40)]
    with Agent(acknowledge=True) as agent:
        stream = agent.send("GET", one.set, [("prefer", "wait=0")])
        agent.wait(lambda: not stream.open)
        equal("many, acknowledged as they come: wait=0 ends with 200", (200, True), (stream.status, stream.ended))
        holds("and all came, each once", agent.comes(*messages) and len(agent.promises) == 46, len(agent.promises))
        holds("those of each member oldest first", all(
            [s.path for s in agent.promises if links(s.promised, PUSH) == [member.push]] ==
            list(map(path_of, messages[number::2])) for number, member in enumerate((one, two))))
        holds("all are acknowledged", agent.deleted(46))
    equal("acknowledged is gone: 204", (204, []), stored(one.set))


def urgency():
    with Agent() as agent:
        one = Subscription(agent)
        agent.monitor(one.uri, [("urgency", "high")])
        normal = post(one.push)
        low = post(one.push, fields=[("Urgency", "low")])
        holds("Urgency high: a message without one is withheld (5.3)", agent.quiet() and not agent.promises)
        high = post(one.push, fields=[("Urgency", "high")])
        holds("a high one comes", agent.comes(high))
        equal("alone", 1, len(agent.promises))
        agent.request("DELETE", high)
    with Agent() as agent:
        agent.monitor(one.uri, [("urgency", "normal")])
        holds("Urgency normal: the one without comes", agent.comes(normal))
        holds("the low one does not", agent.quiet(0.5) and not agent.promised(low))
        agent.request("DELETE", normal)
    with Agent() as agent:
        agent.monitor(one.uri)
        holds("no Urgency: the low one comes", agent.comes(low))
        now = post(one.push, b"now", 0)
        holds("TTL 0 comes to an agent that is there (5.2)", agent.comes(now))
        agent.request("DELETE", low)
        agent.request("DELETE", now)
        alone = Subscription(agent)
    post(alone.push, b"never", 0)
    equal("TTL 0 with nobody there is gone", (204, []), stored(alone.uri))
    post(one.push, b"short", 1)
    time.sleep(2.2)
    equal("TTL 1 is gone after it", (204, []), stored(one.uri))


def one_at_a_time():
    with Agent() as agent:
        one = Subscription(agent)
    messages = [post(one.push, b"%03d" % number * 100) for number in range(20)]
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1, SettingCodes.INITIAL_WINDOW_SIZE: 0}
    with Agent(settings, acknowledge=True) as agent:
        agent.monitor(one.uri)
        agent.wait(lambda: agent.promises)
        agent.quiet(0.5)
        equal("MAX_CONCURRENT_STREAMS 1 and windows shut: one promise (9113 5.1.2)", 1, len(agent.promises))
        holds("and no content", not any(stream.content for stream in agent.promises))
        opened = []
        end = time.monotonic() + 8
        while len(agent.whole()) < 20 and time.monotonic() < end:
            for stream in agent.unended():
                if stream not in opened:
                    opened.append(stream)
                    agent.open_window(stream, 150)  # half of what it needs, and then the rest
                    agent.wait(lambda: len(stream.content) >= 150, 1)
                    agent.open_window(stream, 150)
            agent.wait(lambda: any(stream not in opened for stream in agent.unended()) or len(agent.whole()) == 20, 0.5)
        equal("all 20 come as windows are opened", 20, len(agent.whole()))
        equal("never two that are answered and not ended", 1, agent.most_answered)
        equal("nor two that are promised and not ended", 1, agent.most_open)
        holds("each once, oldest first", [stream.path for stream in agent.promises] == list(map(path_of, messages)))
        holds("with their content", [s.content for s in agent.promises] == [b"%03d" % n * 100 for n in range(20)])
        holds("all are acknowledged", agent.deleted(20))
    equal("nothing is left", (204, []), stored(one.uri))


def no_limit():
    with Agent() as agent:
        members = [Subscription(agent)]
        members += [Subscription(agent, members[0].set) for _ in range(5)]
    messages = [post(member.push, b"%d" % number) for number in range(10) for member in members]
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: None, SettingCodes.INITIAL_WINDOW_SIZE: 0}
    with Agent(settings, acknowledge=True) as agent:
        agent.monitor(members[0].set)
        agent.wait(lambda: agent.promises)
        agent.quiet()
        came = len(agent.promises)
        holds(f"no limit, windows shut, 60 messages: {MOST_PROMISES} promises at most", 1 < came <= MOST_PROMISES, came)
        agent.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
        agent.flush()
        holds("windows opened by SETTINGS: all 60 come", agent.comes(*messages), len(agent.whole()))
        holds(f"never more than {MOST_PROMISES} that are not ended", agent.most_open <= MOST_PROMISES, agent.most_open)
        equal("each once", 60, len(agent.promises))
        holds("those of each member oldest first", all(
            [s.path for s in agent.promises if links(s.promised, PUSH) == [member.push]] ==
            list(map(path_of, messages[number::6])) for number, member in enumerate(members)))
        holds("all are acknowledged", agent.deleted(60))
    equal("nothing is left", (204, []), stored(members[0].set))


def no_push():
    with Agent({SettingCodes.ENABLE_PUSH: 0}) as agent:
        one = Subscription(agent)
        message = post(one.push)
        equal("an agent without server push: monitoring is answered with 400",
              400, agent.request("GET", one.uri).status)
        equal("at a set, too", 400, agent.request("GET", one.set).status)
        holds("and nothing is promised", agent.quiet(0.3) and not agent.promises)
        equal("it may do the rest on that connection", 204, agent.request("DELETE", message).status)
    for name, resource in (("a subscription", one.uri), ("a set", one.set)):
        start = time.monotonic()
        status = plain("GET", resource).status
        equal(f"HTTP/1.1 at {name}: 505", 505, status)
        holds("at once", time.monotonic() - start < 1, f"after {time.monotonic() - start:.1f} s")
    for octets in (5_000, 40_000, 300_000):
        statuses = {plain("POST", one.push, [("TTL", "60")], bytes(octets)).status for _ in range(10)}
        equal(f"by HTTP/1.1, {octets} octets sent before the answer is read: 413 each time (RFC 9112 9.6)", {413}, statuses)


def refusing():
    with Agent({SettingCodes.INITIAL_WINDOW_SIZE: 0}, refuse=True) as agent:
        one = Subscription(agent)
        two = Subscription(agent, one.set)
        stream = agent.monitor(one.set)
        messages = [post(one.push), post(two.push)]
        agent.wait(lambda: False, 5)
        count = len(agent.promises)
        holds("an agent that resets two messages with CANCEL: few promises in 5 s", 2 <= count <= 10, count)
        holds("the connection is not ended, nor is the request", not agent.gone and stream.open, agent.gone)
        three = Subscription(agent, one.set)
        holds("it can be used as before", three.set == one.set)
        agent.refuse = False
        last = post(three.push, b"welcome")
        agent.wait(lambda: agent.promised(last))
        needs("another message is promised there", agent.promised(last))
        agent.open_window(agent.promised(last), 100)
        holds("and comes", agent.comes(last))
        equal("one that was refused is acknowledged", 204, agent.request("DELETE", messages[0]).status)
        equal("as is the last one", 204, agent.request("DELETE", last).status)
    equal("the other one is kept for a new connection (8030 6.2)", (200, [path_of(messages[1])]), stored(one.set))


def slow_readers():
    with Agent() as agent:
        slow = [[Subscription(agent)] for _ in range(3)]
        for members in slow:
            members += [Subscription(agent, members[0].set) for _ in range(2)]
        other = Subscription(agent)
    many = [[post(member.push, os.urandom(4096)) for member in members for _ in range(8)] for members in slow]
    with Agent({SettingCodes.INITIAL_WINDOW_SIZE: 0}) as shut, Agent(windows=False, acknowledge=True) as full, \
            Agent(acknowledge=True) as deaf, Agent() as agent:
        shut.monitor(slow[0][0].set)
        full.monitor(slow[1][0].set)
        deaf.send("GET", slow[2][0].set)  # and it does not read for now
        shut.wait(lambda: shut.promises)
        shut.quiet(0.3)
        full.wait(lambda: sum(len(stream.content) for stream in full.promises) > 61440)
        full.quiet(0.3)
        holds("a slow agent has promises, and no content", shut.promises and not any(s.content for s in shut.promises))
        octets = sum(len(stream.content) for stream in full.promises)
        holds("one with a full connection got 65535 octets", 61440 < octets <= 65535, octets)
        agent.monitor(other.uri)
        slowest = 0
        for number in range(5):
            many[2].append(post(slow[2][0].push, os.urandom(4096)))
            start = time.monotonic()
            needs("another agent gets its message", agent.comes(post(other.push, b"%d" % number)))
            slowest = max(slowest, time.monotonic() - start)
        holds("none of that delays the other agent by a second", slowest < 1, f"{slowest:.2f} s")
        holds("none of them lost its connection",
              shut.quiet(0.1) and full.quiet(0.1) and not (shut.gone or full.gone))
        full.windows = True
        full.h2.increment_flow_control_window(octets)
        full.flush()
        holds("the full one gets the rest once it reads", full.comes(*many[1]), len(full.whole()))
        holds("as does the one that did not read", deaf.comes(*many[2]), len(deaf.whole()))


def forms():
    """Header fields in all the forms that they may have."""
    with Agent() as agent:
        one = Subscription(agent)
        path = path_of(one.set)
        for link in ([f'<{one.set}>; rel="{SET}"'], [f"<{path}>;rel={SET}"],
                     [f'<{path}> ; title="a, b" ; REL="next {SET}"'],
                     [f'</x>; rel="next", <{path}>; rel="{SET}"'], ['</x>; rel="next"', f'<{path}>; rel="{SET}"']):
            answer = agent.request("POST", url, [("link", text) for text in link])
            equal(f"the set is known by {', then '.join(link).replace(path, '/SET')} (8288 3)",
                  (201, [one.set]), (answer.status, links(answer.fields, SET)))
        for prefer in (['wait="0"'], ["Wait=0"], ["respond-async, wait=0"], ["respond-async", "wait=0"],
                       ['a="b, wait=7", wait=0']):
            answer = agent.request("GET", one.uri, [("prefer", text) for text in prefer])
            equal(f"Prefer: {', then '.join(prefer)} does not wait (7240 2)", 204, answer.status)
        agent.monitor(one.uri, [("urgency", "HIGH")])
        message = post(one.push, fields=[("Urgency", "High")])
        holds("an urgency is the same in capitals (5234 2.3)", agent.comes(message))
        post(one.push)
        holds("and means the same", agent.quiet(0.5))
        for ttl in ("99999999999", "18446744073709551617"):
            answer = plain("POST", one.push, [("TTL", ttl)], b"")
            told = value(answer.fields, "ttl")
            holds(f"TTL {ttl} is taken, and another one told or none (5.2)",
                  answer.status == 201 and (told is None or int(told) <= int(ttl)), f"{answer.status}, {told}")


def odd_connections():
    """What HTTP/2 allows, and few do."""
    content = os.urandom(100)
    with Agent({SettingCodes.INITIAL_WINDOW_SIZE: 1, SettingCodes.HEADER_TABLE_SIZE: 0}) as agent:
        one = Subscription(agent)
        agent.monitor(one.uri)
        messages = [post(one.push, content) for _ in range(3)]
        holds("windows of one octet and no table for header fields: messages come (9113 6.9, 7541 4.2)",
              agent.comes(*messages) and all(stream.content == content for stream in agent.promises))
        unknown = b"\0\0\4\xbb\0\0\0\0\0abcd"
        priority = b"\0\0\5\2\0\0\0\0\x0f\0\0\0\0\x10"
        setting = b"\0\0\6\4\0\0\0\0\0\xab\xcd\0\0\0\1"
        agent.socket.sendall(unknown + priority + setting)
        holds("frames and settings that nobody knows are no error (9113 5.5)", agent.comes(post(one.push)), agent.gone)
    with Agent() as agent:
        one = Subscription(agent)
        stream = agent.monitor(one.uri)
        agent.h2.reset_stream(next(number for number, other in agent.streams.items() if other is stream),
                              h2.errors.ErrorCodes.CANCEL)
        agent.request("POST", url)
        message = post(one.push)
        holds("a monitoring request that was reset gets no promise (9113 8.4)", agent.quiet(0.5) and not agent.gone)
        stream = agent.monitor(one.uri)
        holds("the next one on that connection does", agent.comes(message))
        before = agent.settings_acknowledged
        agent.h2.update_settings({SettingCodes.ENABLE_PUSH: 0})
        agent.flush()
        holds("server push is turned off while a request is open",
              agent.wait(lambda: agent.settings_acknowledged > before))
        second = post(one.push)
        holds("from then on nothing is promised (9113 6.5.2)", agent.quiet() and not agent.gone)
        holds("the message waits", stored(one.uri)[1] == [path_of(message), path_of(second)])


def raised_limit():
    with Agent({SettingCodes.MAX_CONCURRENT_STREAMS: 0}) as agent:
        one = Subscription(agent)
        agent.monitor(one.uri)
        messages = [post(one.push, b"%d" % number) for number in range(3)]
        agent.quiet()
        equal("MAX_CONCURRENT_STREAMS 0: nothing is answered (9113 5.1.2)", 0, agent.most_answered)
        agent.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 3})
        agent.flush()
        holds("raised to 3, what is stored comes (6.5.2)", agent.comes(*messages), len(agent.promises))


def without_acknowledgement():
    with Agent() as agent:
        one = Subscription(agent)
    messages = [post(one.push, b"%d" % number) for number in range(40)]
    with Agent() as agent:
        stream = agent.send("GET", one.uri, [("prefer", "wait=0")])
        agent.wait(lambda: not stream.open)
        equal("wait=0 with 40 messages ends without an acknowledgement (8030 6)", 200, stream.status)
        holds("and all are promised (MUST)", agent.comes(*messages, seconds=1), len(agent.promises))


# ---------------------------------------------------------------- receipts, topics


def ask(push, receipt=None, fields=(), content=b"hello", prefer="respond-async"):
    """Sends a message and asks for a receipt."""
    fields = [("TTL", "60"), ("Prefer", prefer), *fields]
    if receipt:
        fields.append(("Link", f'<{path_of(receipt)}>; rel="{RECEIPT}"'))
    return plain("POST", push, fields, content)


def needs_receipt(answer):
    receipts = links(answer.fields, RECEIPT)
    needs("a message is taken with 202, location and receipt subscription",
          answer.status == 202 and answer.location and len(receipts) == 1, f"{answer.status} {answer.fields}")
    return receipts[0]


def receipts():
    with Agent() as agent, Agent() as server:
        one, two = Subscription(agent), Subscription(agent)
        answer = ask(one.push, content=b"first")
        equal("a message with a receipt is taken with 202 (5.1)", 202, answer.status)
        receipt = needs_receipt(answer)
        needs("the receipt subscription is none of the resources known",
              receipt not in (one.uri, one.push, one.set, answer.location))
        stream = server.monitor(receipt)
        holds("no receipt before the acknowledgement, and no answer (6.3)", server.quiet() and stream.fields is None)
        agent.monitor(one.uri)
        agent.monitor(two.uri)
        needs("the message comes to the user agent", agent.comes(answer.location))
        push = agent.promised(answer.location)
        equal("with its content", b"first", push.content)
        holds("and nothing of the receipt subscription",
              not links(push.fields, RECEIPT) and not links(push.promised, RECEIPT))
        holds("being delivered is not being acknowledged", server.quiet(0.5))
        equal("it is acknowledged", 204, agent.request("DELETE", answer.location).status)
        needs("the receipt comes", server.comes(answer.location))
        push = server.promised(answer.location)
        holds("promised on the stream of the request", push.parent is stream)
        equal("by GET", "GET", value(push.promised, ":method"))
        equal("of https", "https", value(push.promised, ":scheme"))
        equal("with the authority of the request", urlsplit(url).netloc, value(push.promised, ":authority"))
        equal("with 204 (6.3)", 204, push.status)
        equal("without content", b"", push.content)
        holds("the request stays open", stream.open and not stream.fields)

        second = ask(two.push, receipt)
        equal("a second subscription with that receipt subscription: the same one", receipt, needs_receipt(second))
        third = ask(one.push, receipt, prefer="wait=5, respond-async")
        equal("respond-async among other preferences: the same one", receipt, needs_receipt(third))
        silent = post(one.push)
        needs("all come to the user agent", agent.comes(second.location, third.location, silent))
        for message in (second.location, third.location, silent):
            agent.request("DELETE", message)
        needs("the receipts of both come on one request", server.comes(second.location, third.location))
        equal("with 204", [204, 204], [server.promised(m.location).status for m in (second, third)])
        holds("none comes for a message that did not ask", server.quiet(0.5) and not server.promised(silent))

        withheld = Subscription(agent)
        lost = ask(withheld.push, receipt)
        needs_receipt(lost)
        equal("a subscription with a stored message is removed", 204, agent.request("DELETE", withheld.uri).status)
        needs("a receipt comes for the message that is not delivered (6.2)", server.comes(lost.location))
        equal("with 410", 410, server.promised(lost.location).status)
        equal("without content", b"", server.promised(lost.location).content)
        equal("no receipt came twice", 4, len(server.promises))

        refused = plain("POST", one.push, [
            ("TTL", "60"), ("Prefer", "respond-async"), ("Link", f'</no/such/receipts>; rel="{RECEIPT}"')], b"")
        equal("a receipt subscription that is none: 400 (5.1)", 400, refused.status)
        equal("a subscription is no receipt subscription: 400", 400, ask(one.push, one.uri).status)
        fourth = needs_receipt(ask(one.push))
        holds("without the link it is another receipt subscription, or the same", fourth.startswith("https://"))
        answer = server.request("DELETE", receipt)
        holds("the receipt subscription is removed (7.3)", answer.status in (200, 202, 204), answer.status)
        server.wait(lambda: not stream.open)
        equal("its open request is answered with 404", 404, stream.status)
        equal("it cannot be asked for any more", 400, ask(one.push, receipt).status)
        equal("it cannot be monitored any more", 404, server.request("GET", receipt).status)
    with Agent({SettingCodes.ENABLE_PUSH: 0}) as agent:
        equal("receipts without server push: 400", 400, agent.request("GET", fourth).status)
    equal("receipts by HTTP/1.1: 505", 505, plain("GET", fourth).status)


def topic(name):
    return [("Topic", name)]


def topics():
    with Agent() as agent:
        one = Subscription(agent)
        two = Subscription(agent, one.set)
    old = [post(one.push, b"%d" % n, fields=topic("upd")) for n in range(3)]
    with Agent() as agent:
        stream = agent.monitor(one.uri)
        holds("three messages of a topic: the third comes (5.4)", agent.comes(old[2]))
        holds("and no other", agent.quiet(0.5) and len(agent.promises) == 1, [s.content for s in agent.promises])
        equal("its content is the third", b"2", agent.promises[0].content)
        holds("the topic is not told", value(agent.promises[0].promised, "topic") is None
              and value(agent.promises[0].fields, "topic") is None)
        holds("each had a URI of its own", len(set(old)) == 3)
        equal("those replaced are gone", [404, 404], [agent.request("DELETE", message).status for message in old[:2]])
        newer = post(one.push, b"newer", fields=topic("upd"))
        holds("a fourth comes to an agent that is there", agent.comes(newer))
        equal("what it replaced is gone, though delivered", 404, agent.request("DELETE", old[2]).status)
        equal("it is acknowledged", 204, agent.request("DELETE", newer).status)
        holds("the request stays open", stream.open)
    equal("nothing is left", (204, []), stored(one.set))

    kept = [post(one.push, fields=topic("a")), post(one.push, fields=topic("A")), post(one.push, fields=topic("b_-9")),
            post(one.push), post(one.push), post(two.push, fields=topic("a")), post(one.push, fields=topic("x" * 32))]
    # Between two subscriptions there is no order.
    status, found = stored(one.set)
    equal("other topics, none, and those of another subscription are kept",
          (200, sorted(path_of(message) for message in kept)), (status, sorted(found)))
    of_one = [path_of(message) for message in kept if message is not kept[5]]
    equal("those of one subscription come in order", of_one, [path for path in found if path != path_of(kept[5])])
    with Agent() as agent:
        for message in kept:
            agent.request("DELETE", message)
    for wrong in ("x" * 33, "a.b", "a b", "a/b", "a+b", "a=", '"upd"', "grüße".encode(), "a, b", ""):
        answer = plain("POST", one.push, [("TTL", "60"), ("Topic", wrong)], b"")
        equal(f"the topic {wrong!r} is refused with 400", 400, answer.status)
    answer = plain("POST", one.push, [("TTL", "60"), ("Topic", "a"), ("Topic", "b")], b"")
    equal("as are two topics", 400, answer.status)
    equal("nothing of that is stored", (204, []), stored(one.set))

    post(one.push, fields=[*topic("u"), ("Urgency", "high")])
    post(one.push, fields=topic("u"))
    with Agent() as agent:
        agent.monitor(one.uri, [("urgency", "high")])
        holds("a replacement has its own urgency", agent.quiet(0.5))
    post(one.push, ttl=1, fields=topic("u"))
    time.sleep(2.2)
    equal("and its own TTL", (204, []), stored(one.uri))


def receipts_of_topics():
    with Agent() as agent, Agent() as server:
        one = Subscription(agent)
        first = ask(one.push, fields=topic("upd"), content=b"first")
        receipt = needs_receipt(first)
        server.monitor(receipt)
        second = ask(one.push, receipt, topic("upd"), b"second")
        equal("a replacement may ask for a receipt, too", receipt, needs_receipt(second))
        holds("no receipt for what was replaced (5.4)", server.quiet(), [s.path for s in server.promises])
        agent.monitor(one.uri)
        needs("the replacement comes", agent.comes(second.location))
        equal("alone", 1, len(agent.promises))
        agent.request("DELETE", second.location)
        needs("its receipt comes", server.comes(second.location))
        equal("with 204", 204, server.promised(second.location).status)
        third = ask(one.push, receipt, topic("upd"))
        fourth = post(one.push, fields=topic("upd"))
        agent.comes(fourth)
        agent.request("DELETE", fourth)
        holds("a replacement that asks for none takes the receipt away",
              server.quiet() and not server.promised(fourth) and not server.promised(third.location))
        holds("no receipt for the first one up to now", not server.promised(first.location))


def main():
    global url, ca
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="URL of the push service")
    parser.add_argument("--ca", required=True, metavar="FILE", help="certification authority in PEM")
    parser.add_argument("more", nargs="*", choices=[[], "receipts", "topics", "strict"], help="what is checked besides")
    options = parser.parse_args()
    url, ca = options.url, options.ca
    groups = [trust, subscribe, monitor, refused_messages, in_sets, without_waiting, urgency, one_at_a_time, no_limit,
              no_push, refusing, slow_readers, forms, odd_connections]
    groups += [raised_limit, without_acknowledgement] * ("strict" in options.more)
    groups += [receipts] * ("receipts" in options.more) + [topics] * ("topics" in options.more)
    groups += [receipts_of_topics] * ({"receipts", "topics"} <= set(options.more))
    for group in groups:
        try:
            group()
        except Missing as missing:
            holds(f"{group.__name__} comes to its end", False, f"without this it cannot go on: {missing}")
        except Exception as error:  # the other groups go on whatever a service may do
            holds(f"{group.__name__} comes to its end", False, repr(error))
    print(f"python: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
