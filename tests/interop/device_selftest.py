#!/usr/bin/env python3
"""Whole sessions of `device.py` with a small gateway, over simulated lines that lose, double, damage and echo octets.

The clock is given: nothing waits in reality. The gateway is there with two machines of a session: that of `device.py`,
and the simplest one that the specification describes (one frame in flight, nothing kept that comes early, a timer of
1000 ms), which shares nothing with the other but the encoding of frames.

    device_selftest.py [-v]

It was written from the specification of the link protocol alone.
"""

import collections
import heapq
import itertools
import random
import unittest

import device as d


# ---------------------------------------------------------------------------------------------------------------------
# The simplest machine of a session


class SimpleLink:
    """One frame in flight, nothing kept that comes early, a timer of 1000 ms. A gateway without an urgent stream."""

    def __init__(self, boot, mtu, window):
        self.boot, self.mtu, self.window = boot, mtu, window
        self.events = collections.deque()
        self.answer = None
        self.hello_owed = False
        self.start()

    def start(self):
        self.open, self.seed, self.peer, self.hello_at = False, None, 0, 0
        self.events.clear()

    def begin(self, hello):
        self.open, self.seed = True, d.session_seed(self.boot, self.peer)
        self.peer_mtu, self.limit = hello.mtu, hello.window
        self.out, self.at, self.number = b"", 0, 0  # what is not known to have arrived, and its offset
        self.flight = None  # (number, octets), or None
        self.sent_at = self.heard_at = 0
        self.there, self.at_there = b"", 0
        self.newest = self.before = None
        self.ack_owed = False
        self.events.append(("open",))

    def leave(self):
        self.boot = self.boot % 0xFFFFFFFF + 1
        self.start()
        self.events.append(("closed", "simple"))

    def send(self, message, urgent=False):
        assert not urgent
        self.out += d.varint(len(message)) + message
        return True

    def allow_urgent(self, window):
        pass

    def resume(self, now):
        self.sent_at = self.heard_at = now

    def next_event(self):
        return self.events.popleft() if self.events else None

    def take(self, encoded, now):
        try:
            frame = d.parse_frame(d.cobs_decode(encoded), d.DEVICE, self.seed)
        except d.Damaged:
            return
        if isinstance(frame, d.Hello):
            self.hello_owed |= frame.ask
            if self.open and frame.boot != self.peer:
                self.leave()
            if not self.open:
                self.peer = frame.boot
                if frame.echo == self.boot:
                    self.begin(frame)
        elif isinstance(frame, d.Probe):
            self.answer = None if frame.answer else frame
        elif isinstance(frame, d.Ack):
            self.take_ack(frame.newest, now)
            self.take_limit(frame.urgent, frame.limit)
        else:
            self.take_data(frame, now)

    def take_limit(self, urgent, limit):
        ahead = (limit - self.limit) % 65536
        if not urgent and ahead < 32768:
            self.limit += ahead

    def take_ack(self, newest, now):
        if self.flight is not None and newest == self.flight[0]:
            self.out, self.at = self.out[self.flight[1] :], self.at + self.flight[1]
            self.flight, self.heard_at = None, now

    def take_data(self, data, now):
        ahead = (data.offset - self.at_there - len(self.there)) % 65536
        ahead -= 65536 if ahead >= 32768 else 0
        if ahead > 0 or data.urgent:
            return
        if data.ack is not None:
            self.take_ack(data.ack[0], now)
        if data.limit is not None:
            self.take_limit(False, data.limit)
        self.there += data.payload[-ahead:] if ahead > -len(data.payload) else b""
        if self.newest is None:
            self.newest, self.before = data.number, 0
        elif 0 < (data.number - self.newest) % 256 < 128:
            ahead = (data.number - self.newest) % 256
            self.before = (self.before * 2 + 1) * 2 ** (ahead - 1) % 65536
            self.newest = data.number
        elif 0 < (self.newest - data.number) % 256 <= 16:
            self.before |= 2 ** ((self.newest - data.number) % 256 - 1)
        self.ack_owed = True
        while self.there:
            length, octets = self.there[0], 1
            if length >= 128:
                if len(self.there) == 1:
                    return
                length, octets = length - 128 + 128 * self.there[1], 2
            if len(self.there) < octets + length:
                return
            self.events.append(("message", self.there[octets : octets + length], False))
            self.there, self.at_there = self.there[octets + length :], self.at_there + octets + length

    def poll(self, now):
        if self.hello_owed or not self.open and now >= self.hello_at:
            self.hello_owed, self.hello_at = False, now + 1000
            hello = d.Hello(not self.open, 1, self.boot, self.peer, self.mtu, self.window)
            return d.to_line(d.hello_body(d.GATEWAY, hello))
        if self.answer is not None:
            answer, self.answer = self.answer._replace(answer=True), None
            return d.to_line(d.probe_body(d.GATEWAY, answer))
        if not self.open:
            return None
        if self.ack_owed:
            self.ack_owed = False
            ack = d.Ack(False, self.newest, self.before, (self.at_there + self.window) % 65536)
            return d.to_line(d.ack_body(d.GATEWAY, ack), self.seed)
        if self.flight is not None and now < self.sent_at + 1000 or not self.out:
            return None
        if self.flight is not None and now >= self.heard_at + 30_000:
            self.leave()
            return None
        if self.flight is None:
            if self.limit <= self.at and now < self.sent_at + 2000:
                return None
            self.heard_at = now
        payload = self.out[: min(d.frame_max(self.peer_mtu) - 8, max(0, self.limit - self.at))]
        self.flight, self.sent_at = (self.number, len(payload)), now
        self.number = (self.number + 1) % 256
        data = d.Data(False, self.flight[0], self.at % 65536, None, None, payload)
        return d.to_line(d.data_body(d.GATEWAY, data), self.seed)

    def wake_at(self):
        if not self.open:
            return self.hello_at
        if self.flight is not None:
            return self.sent_at + 1000
        return self.sent_at + 2000 if self.out and self.limit <= self.at else None


# ---------------------------------------------------------------------------------------------------------------------
# The gateway

ANSWER_WITHIN_MS = 10_000
AGAIN_MS = 5000
EPOCH_MS = 1_700_000_000_000


class Push:
    def __init__(self, name, channel, body, urgent=False, at=0):
        self.name, self.channel, self.body, self.urgent, self.at = name, channel, body, urgent, at
        self.due_at = at
        self.pushed_at = None

    def message(self, now):
        age = int((now - self.at) / 1000) + 1
        return bytes([d.PUSH]) + self.name + d.varint(self.channel) + d.varint(age) + d.octets_field(self.body)


def subscribed_message(channel, push):
    keys = d.octets_field(b"\x04" + bytes([channel % 256]) * 64) + d.octets_field(push.encode()[-1:] * 16)
    return bytes([d.SUBSCRIBED]) + d.varint(channel) + d.octets_field(push.encode()) + keys


class GatewayEnd:
    """The rules for a gateway with one device, and a push service that always agrees."""

    def __init__(self, link, device, pushes=(), channels=(1,)):
        self.link = link
        self.splitter = d.Splitter(link.mtu)
        self.device = device
        self.pushes = {push.name: push for push in pushes}
        self.endpoints = {channel: f"https://p/{channel}/0" for channel in channels}
        self.made = itertools.count(1)
        self.lines = []  # what came from the device, in words
        self.refused = {}
        self.polled_at = 0
        self.clear()

    def clear(self):
        self.state = "new"  # attached, ignored
        self.asleep_since = None
        self.tell = False  # Status is owed once nothing waits
        self.largest = self.in_flight_max = self.urgent = 0
        for push in self.pushes.values():
            push.pushed_at = None

    def receive(self, octets, now):
        for encoded in self.splitter.feed(octets):
            self.link.take(encoded, now)
            self.run_events(now)

    def run_events(self, now):
        while (event := self.link.next_event()) is not None:
            if event[0] in ("open", "closed"):
                self.clear()
                self.lines.append(event[0])
            elif event[0] == "message":
                self.message(event[1], now)

    def status(self, now, waiting=None):
        waiting = min(255, len(self.pushes)) if waiting is None else waiting
        self.link.send(bytes([d.STATUS, 1, waiting]) + d.varint(EPOCH_MS + int(now)))

    def message(self, message, now):
        reader = d.Reader(message)
        tag = reader.octet()
        if self.state == "ignored" or (self.state == "attached" and tag == d.ATTACH):
            return
        if self.state == "new":
            name = reader.text() if tag == d.ATTACH else None
            if name != self.device:
                self.state = "ignored"
                self.lines.append("unknown device")
                self.link.send(bytes([d.REFUSED, 0, 1]))
                return
            self.state = "attached"
            self.largest = min(4096, reader.varint(16))
            self.urgent = reader.varint(16)
            self.link.allow_urgent(self.urgent)
            self.in_flight_max = min(8, max(1, reader.varint(16) // 2))
            traits = reader.octet()
            reader.end()
            self.lines.append(f"attach traits {traits}")
            self.status(now)
            self.tell = True
            return
        if self.asleep_since is not None:
            self.asleep_since = None
            self.link.resume(now)
        if tag == d.ACK:
            self.pushes.pop(reader.take(8), None)
        elif tag == d.REFUSE:
            name, reason = reader.take(8), reader.one_of(d.REASONS)
            push = self.pushes.get(name)
            self.refused[name] = reason
            if push is not None and reason == "full":
                push.pushed_at, push.due_at = None, now + AGAIN_MS
            elif push is not None:
                del self.pushes[name]
        elif tag in (d.SUBSCRIBE, d.ROTATE):
            self.subscribe(tag, reader.channel())
        elif tag == d.UNSUBSCRIBE:
            channel = reader.channel()
            self.endpoints.pop(channel, None)
            self.link.send(bytes([d.UNSUBSCRIBED]) + d.varint(channel))
        elif tag == d.SLEEP:
            self.lines.append(f"sleep {reader.varint(32)}")
            self.asleep_since = now
        elif tag == d.AWAKE:
            self.lines.append("awake")
            self.tell = True
        else:
            assert tag == d.ASK_STATUS
            self.status(now)
        reader.end()

    def subscribe(self, tag, channel):
        if tag == d.ROTATE and channel not in self.endpoints:
            self.link.send(bytes([d.REFUSED]) + d.varint(channel) + b"\2")
            return
        if tag == d.SUBSCRIBE and channel not in self.endpoints and len(self.endpoints) >= 8:
            self.link.send(bytes([d.REFUSED]) + d.varint(channel) + b"\0")
            return
        if tag == d.ROTATE or channel not in self.endpoints:
            self.endpoints[channel] = f"https://p/{channel}/{next(self.made)}"
        self.link.send(subscribed_message(channel, self.endpoints[channel]))

    def poll(self, now):
        self.polled_at = now
        if self.asleep_since is not None and self.link.open and not self.link.hello_owed:
            if self.link.ack_owed:
                return self.link._ack(False)
            return None
        if self.state == "attached":
            self.push(now)
        frame = self.link.poll(now)
        self.run_events(now)
        return frame

    def push(self, now):
        unanswered = 0
        for push in list(self.pushes.values()):
            if push.pushed_at is not None and now >= push.pushed_at + ANSWER_WITHIN_MS:
                push.pushed_at, push.due_at = None, now + AGAIN_MS
            unanswered += push.pushed_at is not None
        for push in list(self.pushes.values()):
            if unanswered >= self.in_flight_max:
                return
            if push.pushed_at is not None or push.at > now or push.due_at > now:
                continue
            message = push.message(now)
            if len(message) <= self.largest:
                urgent = push.urgent and len(message) <= self.urgent - 2
                assert self.link.send(message, urgent=urgent)
                push.pushed_at = now
                unanswered += 1
        if self.tell and not unanswered and not any(push.at <= now for push in self.pushes.values()):
            self.tell = False
            self.status(now, 0)

    def wake_at(self):
        if self.asleep_since is not None:
            return None
        times = [] if self.link.wake_at() is None else [self.link.wake_at()]
        if self.state == "attached":
            for push in self.pushes.values():
                at = max(push.at, push.due_at) if push.pushed_at is None else push.pushed_at + ANSWER_WITHIN_MS
                if at > self.polled_at:  # else it waits for an answer
                    times.append(at)
        return min(times) if times else None


# ---------------------------------------------------------------------------------------------------------------------
# The line and the clock


class Simulation:
    """A gateway and a device on a line. `loss` is the chance for an octet to be lost, and to be doubled, and to be damaged;
    `bursts` the chance for a frame to be lost whole, and to come twice; `echo` the chance for one to come back."""

    def __init__(self, seed, pushes=(), loss=0.0, bursts=0.0, echo=0.0, simple=False, baud=115200, latency=2,
                 gateway_mtu=256, gateway_window=256, device_mtu=256, window=8192, urgent=8192, memory=None, actions=(),
                 refusals=None, device_name="d1"):
        self.rng = random.Random(seed)
        self.loss, self.bursts, self.echo = loss, bursts, echo
        self.baud, self.latency = baud, latency
        self.now = 0
        self.reports, self.logs = [], []
        self.simple, self.gateway_mtu, self.gateway_window = simple, gateway_mtu, gateway_window
        device_boot = self.rng.choice((self.boot(), 0xFFFFFFFF))
        link = d.Link(d.DEVICE, device_boot, device_mtu, window, urgent)
        log = lambda fields: self.logs.append({"at": self.now, **fields})
        self.device = d.Device(link, device_name, self.reports.append, log, None, memory, refusals, actions)
        self.expected = {push.name.hex(): push.body for push in pushes}
        self.gateway = GatewayEnd(self.new_gateway_link(), "d1", pushes)
        self.events = []
        self.order = itertools.count()
        self.free_at = {"gateway": 0, "device": 0}
        self.frames = collections.Counter()
        self.sent = {"gateway": [], "device": []}  # (when, frame)
        self.other_end = {"gateway": "device", "device": "gateway"}
        for end in self.other_end:
            self.hand_over(end, b"\0")

    def boot(self):
        return self.rng.randint(1, 0xFFFFFFFF)

    def new_gateway_link(self):
        if self.simple:
            return SimpleLink(self.boot(), self.gateway_mtu, self.gateway_window)
        return d.Link(d.GATEWAY, self.boot(), self.gateway_mtu, self.gateway_window)

    def restart_gateway(self):
        old = self.gateway
        self.gateway = GatewayEnd(self.new_gateway_link(), "d1", old.pushes.values(), old.endpoints)
        self.gateway.lines = old.lines

    def damage(self, octets):
        out = bytearray()
        for octet in octets:
            chance = self.rng.random()
            if chance < self.loss:
                continue
            if chance < 2 * self.loss:
                out.append(octet)
            elif chance < 3 * self.loss:
                octet ^= 1 << self.rng.randrange(8)
            out.append(octet)
        return bytes(out)

    def hand_over(self, end, octets):
        self.sent[end].append((self.now, octets))
        self.free_at[end] = max(self.now, self.free_at[end]) + len(octets) * 10_000 / self.baud
        copies = (self.rng.random() >= self.bursts) + (self.rng.random() < self.bursts)
        arrivals = [self.other_end[end]] * copies + [end] * (self.rng.random() < self.echo)
        for to in arrivals:
            heapq.heappush(self.events, (self.free_at[end] + self.latency, next(self.order), to, self.damage(octets)))

    def end(self, name):
        return self.gateway if name == "gateway" else self.device

    def step(self):
        for name in ("gateway", "device"):
            while self.now >= self.free_at[name] and (frame := self.end(name).poll(self.now)) is not None:
                self.hand_over(name, frame)
        times = [self.events[0][0]] if self.events else []
        for name in ("gateway", "device"):
            if self.now < self.free_at[name]:
                times.append(self.free_at[name])
            elif (at := self.end(name).wake_at()) is not None:
                times.append(max(at, self.now + 0.001))
        if not times:
            return False
        self.now = max(self.now, min(times))
        while self.events and self.events[0][0] <= self.now:
            _, _, to, octets = heapq.heappop(self.events)
            self.end(to).receive(octets, self.now)
        return True

    def is_done(self):
        return self.device.is_done(len(self.expected)) and not self.gateway.pushes

    def run(self, limit_ms, done=None, each_step=None):
        done = done or self.is_done
        while not done():
            assert self.now < limit_ms, f"does not come to an end: {self.logs[-5:]} {self.gateway.pushes.keys()}"
            if each_step:
                each_step()
            if not self.step():
                assert done(), f"stands still: {self.logs[-5:]}"
        return self

    def check_pushes(self):
        received = {}
        for line in self.reports:
            if line["event"] == "received":
                assert line["message"] not in received, "given to the application twice"
                received[line["message"]] = line["text"].encode() if "text" in line else bytes.fromhex(line["hex"])
        assert received == self.expected, f"{len(received)} of {len(self.expected)}"

    def logged(self, event):
        return [line for line in self.logs if line["event"] == event]

    def frames_of(self, end, kind):
        """When frames of a kind were sent, and what they were before encoding."""
        frames = [(at, d.cobs_decode(octets[:-1])) for at, octets in self.sent[end] if octets != b"\0"]
        return [(at, frame) for at, frame in frames if frame[0] & 0xF0 == kind]


def some_pushes(seed, count, lengths=(0, 5, 40, 300, 3993), channels=1, every=0):
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.choice(lengths)) for _ in range(count)]
    return [Push(n.to_bytes(8, "big"), 1 + n % channels, body, at=n * every) for n, body in enumerate(bodies)]


# ---------------------------------------------------------------------------------------------------------------------


class CleanLineTest(unittest.TestCase):
    def test_in_order_and_once(self):
        pushes = some_pushes(1, 30)
        simulation = Simulation(1, pushes).run(60_000)
        simulation.check_pushes()
        self.assertEqual([line["message"] for line in simulation.reports], [push.name.hex() for push in pushes])
        self.assertEqual(simulation.gateway.lines, ["open", "attach traits 0"])
        self.assertEqual(simulation.logged("closed"), [])

    def test_status_comes_first_and_has_the_time(self):
        simulation = Simulation(2, some_pushes(2, 3))
        simulation.run(60_000, lambda: simulation.reports)
        (status,) = simulation.logged("status")
        self.assertEqual((status["uplink"], status["waiting"]), ("connected", 3))
        self.assertAlmostEqual(status["time"] - EPOCH_MS, status["at"], delta=100)

    def test_an_idle_session_sends_nothing(self):
        simulation = Simulation(3, some_pushes(3, 2)).run(60_000)
        while simulation.step():
            self.assertLess(simulation.now, 60_000)
        self.assertTrue(simulation.gateway.link.open and simulation.device.link.open)

    def test_nothing_is_sent_twice_at_9600_baud(self):
        pushes = some_pushes(4, 10, lengths=(5, 100, 1000))
        simulation = Simulation(4, pushes, baud=9600, device_mtu=64, latency=0).run(60_000)
        simulation.check_pushes()
        octets = sum(len(octets) for _, octets in simulation.sent["gateway"])
        self.assertLess(octets, 1.5 * sum(len(push.body) + 20 for push in pushes) + 500)

    def test_offsets_and_numbers_wrap(self):
        pushes = some_pushes(5, 60, lengths=(3993,))
        simulation = Simulation(5, pushes, baud=10_000_000, device_mtu=512).run(600_000)
        simulation.check_pushes()
        self.assertGreater(simulation.gateway.link.outgoing[False].base, 3 * 65536)

    def test_smallest_window(self):
        pushes = some_pushes(6, 20, lengths=(0, 5, 13))
        simulation = Simulation(6, pushes, device_mtu=20, gateway_mtu=20, window=34, gateway_window=64, urgent=0)
        simulation.run(600_000).check_pushes()

    def test_largest(self):
        pushes = [Push(b"too much", 1, bytes(500)), *some_pushes(7, 3, lengths=(400,))]
        simulation = Simulation(7, pushes, window=502)
        simulation.run(60_000, lambda: list(simulation.gateway.pushes) == [b"too much"])
        self.assertEqual(len(simulation.reports), 3)

    def test_first_ids_wait_for_half_of_the_memory(self):
        for memory, most in ((0, 1), (4, 2), (16, 8), (64, 8)):
            pushes = some_pushes(8, 20, lengths=(5,))
            simulation = Simulation(8, pushes, memory=d.Memory(memory))
            counts = []
            count = lambda: counts.append(sum(push.pushed_at is not None for push in simulation.gateway.pushes.values()))
            simulation.run(60_000, each_step=count).check_pushes()
            self.assertEqual(max(counts), most)


class LossyLineTest(unittest.TestCase):
    LINES = (
        dict(gateway_mtu=256, device_mtu=20),
        dict(gateway_mtu=64, device_mtu=256, window=4098, loss=0.0008),
        dict(gateway_mtu=1024, device_mtu=1024, window=32767, loss=0.0002),
        dict(gateway_mtu=20, device_mtu=64, latency=100, baud=9600),
        dict(gateway_mtu=256, device_mtu=256, echo=0.3, bursts=0.15, loss=0.0008),
    )

    def test_lossy(self):
        for number, line in enumerate(self.LINES):
            for seed in range(6):
                with self.subTest(line=line, seed=seed):
                    pushes = some_pushes(seed, 12, channels=3)
                    options = {"loss": 0.003, "bursts": 0.05, **line}
                    Simulation(100 * number + seed, pushes, **options).run(10_000_000).check_pushes()

    def test_lossy_with_the_simplest_gateway(self):
        for seed in range(8):
            with self.subTest(seed=seed):
                pushes = some_pushes(seed, 6, lengths=(0, 5, 300, 1000))
                Simulation(seed, pushes, loss=0.002, bursts=0.05, simple=True).run(10_000_000).check_pushes()

    def test_small_windows_with_loss(self):
        for seed in range(8):
            for simple in (False, True):
                with self.subTest(seed=seed, simple=simple):
                    pushes = some_pushes(seed, 15, lengths=(0, 5, 13))
                    options = dict(device_mtu=32, window=64, urgent=0, loss=0.004, bursts=0.1, simple=simple)
                    simulation = Simulation(seed, pushes, gateway_window=64, memory=d.Memory(16), **options)
                    simulation.run(10_000_000).check_pushes()

    def test_both_streams_with_loss(self):
        for seed in range(8):
            with self.subTest(seed=seed):
                pushes = some_pushes(seed, 24, lengths=(5, 100, 900), channels=2, every=50)
                for push in pushes:
                    push.urgent = push.channel == 2
                simulation = Simulation(seed, pushes, loss=0.002, bursts=0.05, urgent=1000, window=2000)
                simulation.run(10_000_000).check_pushes()
                urgent = [line for line in simulation.reports if line["urgent"]]
                self.assertTrue(urgent and all(line["channel"] == 2 for line in urgent))

    def test_restarting_gateway(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                simulation = Simulation(seed, some_pushes(seed, 15, every=200), loss=0.001, bursts=0.03)
                rng = random.Random(seed)
                restart = lambda: rng.random() < 0.004 and simulation.restart_gateway()
                simulation.run(10_000_000, each_step=restart).check_pushes()

    def test_actions_with_loss(self):
        actions = [("ask", 0), ("subscribe", 7), ("rotate", 7), ("rotate", 9), ("sleep", 30), ("unsubscribe", 7), ("ask", 0)]
        for seed in range(12):
            with self.subTest(seed=seed):
                simulation = Simulation(seed, some_pushes(seed, 8, every=9000), loss=0.0008, bursts=0.1, actions=actions)
                simulation.run(10_000_000).check_pushes()
                self.assertEqual([line["action"] for line in simulation.logged("done")], [name for name, _ in actions])


class UrgentTest(unittest.TestCase):
    def test_urgent_messages_overtake(self):
        pushes = [*some_pushes(1, 3, lengths=(3993,)), Push(b"urgent!!", 2, b"now", urgent=True, at=1500)]
        simulation = Simulation(1, pushes, baud=9600)
        simulation.run(60_000).check_pushes()
        self.assertEqual([line["channel"] for line in simulation.reports].index(2), 0)
        urgent = simulation.reports[0]
        self.assertEqual((urgent["urgent"], urgent["text"]), (True, "now"))

    def test_a_device_that_wants_none(self):
        pushes = [*some_pushes(1, 3), Push(b"urgent!!", 2, b"now", urgent=True)]
        simulation = Simulation(1, pushes, urgent=0).run(60_000)
        simulation.check_pushes()
        self.assertFalse(any(line["urgent"] for line in simulation.reports))

    def test_small_urgent_window(self):
        pushes = [Push(n.to_bytes(8, "big"), 2, b"x" * n, urgent=True) for n in range(17)]
        simulation = Simulation(1, pushes, urgent=34).run(60_000)
        simulation.check_pushes()
        self.assertTrue(all(line["urgent"] for line in simulation.reports))
        self.assertEqual(simulation.logged("closed"), [])


class RulesTest(unittest.TestCase):
    def test_refused_messages(self):
        pushes = [Push(b"channel1", 1, b"a"), Push(b"channel2", 2, b"b"), Push(b"channel3", 3, b"c")]
        refusals = {2: "not possible", 3: "full"}
        simulation = Simulation(1, pushes, refusals=refusals)
        simulation.run(60_000, lambda: simulation.now > 2000 and len(simulation.gateway.pushes) == 1)
        self.assertEqual(simulation.gateway.refused, {b"channel2": "not possible", b"channel3": "full"})
        del refusals[3]
        simulation.device.refusals = refusals
        simulation.run(60_000, lambda: not simulation.gateway.pushes)
        events = [(line["event"], line["channel"]) for line in simulation.reports]
        self.assertEqual(events[-1], ("received", 3))
        self.assertNotIn(("duplicate", 3), events)

    def test_a_copy_is_acknowledged_again(self):
        pushes = [Push(b"channel1", 1, b"a")]
        simulation = Simulation(1, pushes).run(60_000)
        simulation.gateway.pushes[b"channel1"] = Push(b"channel1", 1, b"a")
        simulation.run(60_000, lambda: not simulation.gateway.pushes)
        self.assertEqual([line["event"] for line in simulation.reports], ["received", "duplicate"])

    def test_unknown_device_starts_anew_each_minute(self):
        simulation = Simulation(1, some_pushes(1, 1), device_name="other")
        simulation.run(200_000, lambda: simulation.gateway.lines.count("unknown device") == 3)
        opened = [line["at"] for line in simulation.logged("open")]
        self.assertEqual(len(opened), 3)
        self.assertTrue(all(60_000 <= b - a < 61_000 for a, b in zip(opened, opened[1:])))
        self.assertEqual(simulation.reports, [])

    def test_sleep(self):
        pushes = [Push(n.to_bytes(8, "big"), 1, b"x", at=10_000 + n) for n in range(12)]
        simulation = Simulation(1, pushes, actions=[("sleep", 60)])
        simulation.run(200_000).check_pushes()
        (asleep,), (awake,) = simulation.logged("asleep"), simulation.logged("awake")
        self.assertEqual(awake["at"] - asleep["at"], 60_000)
        while simulation.step():
            pass
        for end in ("gateway", "device"):
            sent = [at for at, _ in simulation.sent[end] if asleep["at"] + 10 < at < awake["at"]]
            self.assertEqual(sent, [])
        self.assertEqual(simulation.gateway.lines[-2:], ["sleep 60", "awake"])
        self.assertEqual(simulation.logged("closed"), [])
        self.assertEqual(simulation.logged("status")[-1]["waiting"], 0)

    def test_the_gateway_restarts_while_the_device_sleeps(self):
        pushes = [Push(b"sleeping", 1, b"x", at=10_000)]
        simulation = Simulation(1, pushes, actions=[("sleep", 20)])
        simulation.run(200_000, lambda: simulation.logged("asleep"))
        simulation.restart_gateway()
        simulation.run(200_000).check_pushes()
        self.assertEqual(simulation.gateway.lines.count("awake"), 0)

    def test_rotate(self):
        simulation = Simulation(1, actions=[("rotate", 1), ("rotate", 5), ("subscribe", 1)])
        simulation.run(60_000)
        first, again = simulation.logged("subscribed")
        self.assertEqual(first["push"], "https://p/1/1")
        self.assertEqual(first["push"], again["push"])
        (refused,) = simulation.logged("refused")
        self.assertEqual((refused["channel"], refused["reason"]), (5, "unknown channel"))

    def test_probe(self):
        simulation = Simulation(1)
        for opened in (False, True):
            simulation.hand_over("gateway", d.to_line(d.probe_body(d.GATEWAY, d.Probe(False, 7, b"a\0" * 100))))
            while not opened and simulation.step() and not simulation.device.link.open:
                pass
            simulation.run(60_000, lambda: len(simulation.frames_of("device", d.KIND_PROBE)) > opened)
            _, frame = simulation.frames_of("device", d.KIND_PROBE)[-1]
            self.assertEqual(d.parse_frame(frame, d.DEVICE, None), d.Probe(True, 7, b"a\0" * 100))

    def test_silence(self):
        simulation = Simulation(1, some_pushes(1, 1, lengths=(5,), every=0))
        simulation.run(60_000)
        simulation.hand_over = lambda end, octets: simulation.sent[end].append((simulation.now, octets))
        start = simulation.now
        simulation.device.do("ask")
        simulation.run(60_000, lambda: simulation.logged("closed"))
        sent = [round((at - start) / 1000, 1) for at, _ in simulation.frames_of("device", d.KIND_DATA) if at >= start]
        (closed,) = simulation.logged("closed")
        self.assertEqual(closed["what"], "the peer is silent")
        self.assertAlmostEqual(closed["at"] - start, 30_000, delta=1)
        self.assertTrue(all(b - a <= 8.001 for a, b in zip(sent, sent[1:])))
        self.assertEqual(sent[0], 0)
        self.assertGreater(len(sent), 8)

    def test_any_frame_with_a_right_checksum(self):
        for seed in range(300):
            simulation = Simulation(seed, some_pushes(seed, 2, lengths=(5, 300)), actions=[("ask", 0)])
            simulation.run(60_000)
            rng = random.Random(seed)
            for _ in range(60):
                link = simulation.device.link
                kind = rng.choice((0x10, 0x20, 0x20, 0x20, 0x30, 0x40)) | rng.randrange(8)
                body = bytes([kind]) + rng.randbytes(rng.choice((5, 5, 13, rng.randrange(40))))
                if kind & 0xF0 == 0x20 and rng.random() < 0.7:  # where it is understood
                    newest = link.incoming[False].expected + rng.randrange(-5, 20)
                    body = body[:2] + d.u16(newest % 65536) + body[4:]
                seed_of_frame = link.seed or b"" if kind & 0xF0 in (0x20, 0x30) else b""
                simulation.device.receive(d.to_line(body, seed_of_frame), simulation.now)
                for _ in range(rng.randrange(4)):
                    simulation.step()
            simulation.restart_gateway()
            count = len(simulation.logged("status"))
            simulation.run(simulation.now + 600_000, lambda: len(simulation.logged("status")) > count)


if __name__ == "__main__":
    unittest.main()
