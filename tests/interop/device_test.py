#!/usr/bin/env python3
"""Tests of `device.py`: the worked examples of the specification of the link protocol octet for octet, the edges of
its encodings, and whole sessions over simulated lines that lose, double and damage octets.

It was written from the specification of the link protocol alone. Run it with `python3 device_test.py`.
"""

import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import device as d

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "device.py")
GATEWAY_BOOT = 0x11223344
DEVICE_BOOT = 0x55667788
SEED = d.session_seed(GATEWAY_BOOT, DEVICE_BOOT)


def octets(text):
    return bytes.fromhex(text)


def frames_of(octets_of_line, mtu=d.MTU_MAX):
    return [d.cobs_decode(encoded) for encoded in d.Splitter(mtu).feed(octets_of_line)]


def push_message(message, channel, body):
    return bytes([d.PUSH]) + message + d.varint(channel) + d.octets_field(body)


class CobsTest(unittest.TestCase):
    def check(self, frame, *encodings):
        self.assertIn(d.cobs_encode(frame), encodings)
        for encoding in encodings:
            self.assertEqual(d.cobs_decode(encoding), frame)
            self.assertNotIn(0, encoding)

    def test_examples(self):
        self.check(octets("11 22 00 33"), octets("03 11 22 02 33"))
        self.check(octets("00"), octets("01 01"))
        run = bytes(range(1, 255))
        self.check(run, b"\xff" + run, b"\xff" + run + b"\x01")

    def test_around_254(self):
        run = bytes(range(1, 255))
        self.check(run[:253], b"\xfe" + run[:253])
        self.check(run + b"\x07", b"\xff" + run + b"\x02\x07")
        self.check(run + b"\0", b"\xff" + run + b"\x01\x01")
        self.check(run + b"\0\x07", b"\xff" + run + b"\x01\x02\x07")
        self.check(run[:253] + b"\0", b"\xfe" + run[:253] + b"\x01")
        self.check(run + run, (b"\xff" + run) * 2, (b"\xff" + run) * 2 + b"\x01")
        self.check(b"\0" + run, b"\x01\xff" + run, b"\x01\xff" + run + b"\x01")

    def test_damaged(self):
        for encoded in ("02", "05 11 22 33", "01 03 11", "ff 01"):
            with self.assertRaises(d.Damaged):
                d.cobs_decode(octets(encoded))

    def test_random(self):
        rng = random.Random(1)
        for _ in range(2000):
            zeros = rng.choice((0, 0.001, 0.01, 0.5, 1))
            frame = bytes(0 if rng.random() < zeros else rng.randint(1, 255) for _ in range(rng.randint(0, 800)))
            encoded = d.cobs_encode(frame)
            self.assertNotIn(0, encoded)
            self.assertEqual(d.cobs_decode(encoded), frame)

    def test_splitter(self):
        splitter = d.Splitter(20)
        self.assertEqual(splitter.feed(octets("00 00 02")), [])
        self.assertEqual(splitter.feed(octets("11 00 02 12 00 02")), [octets("02 11"), octets("02 12")])
        self.assertEqual(splitter.feed(octets("13 00")), [octets("02 13")])
        self.assertEqual(splitter.feed(b"\x01" * 19 + b"\0"), [b"\x01" * 19])
        self.assertEqual(splitter.feed(b"\x01" * 20 + b"\0" + octets("02 14 00")), [octets("02 14")])

    def test_payload_fits_the_mtu(self):
        self.assertEqual(d.payload_max(20), 11)
        for mtu in range(d.MTU_MIN, d.MTU_MAX + 1):
            for filler in (0, 0x55):
                body = d.data_body(d.GATEWAY, d.Data(True, True, 0x55, 0x55, bytes([filler]) * d.payload_max(mtu)))
                longest = len(d.cobs_encode(body + b"\x55" * 4)) + 1
                self.assertLessEqual(longest, mtu)


class ChecksumTest(unittest.TestCase):
    def test_check_value(self):
        self.assertEqual(d.crc32c(b"123456789"), 0xE3069283)

    def test_session_seed(self):
        self.assertEqual(SEED, octets("44 33 22 11 88 77 66 55"))
        self.assertEqual(d.crc32c(SEED + octets("30 01")), 0xE134DD81)
        self.assertEqual(d.to_line(octets("30 01"), SEED), octets("07 30 01 81 dd 34 e1 00"))

    def test_wrong_session(self):
        frame = octets("30 01 81 dd 34 e1")
        self.assertEqual(d.parse_frame(frame, d.GATEWAY, SEED), d.Ack(False, 1))
        for seed in (None, b"", d.session_seed(GATEWAY_BOOT + 1, DEVICE_BOOT), d.session_seed(DEVICE_BOOT, GATEWAY_BOOT)):
            with self.assertRaises(d.Damaged):
                d.parse_frame(frame, d.GATEWAY, seed)

    def test_every_changed_bit_is_noticed(self):
        frame = octets("11 00 44 33 22 11 00 00 00 00 00 01 00 01 ff 0d 33 d0")
        d.parse_frame(frame, d.GATEWAY, None)
        for bit in range(len(frame) * 8):
            changed = bytearray(frame)
            changed[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(d.Damaged):
                d.parse_frame(bytes(changed), d.GATEWAY, None)


class FrameTest(unittest.TestCase):
    def test_unknown_flags_are_ignored(self):
        with_crc = lambda body: body + d.u32(d.crc32c(SEED + body))
        parse = lambda body: d.parse_frame(with_crc(octets(body)), d.GATEWAY, SEED)
        self.assertEqual(parse("37 07"), d.Ack(True, 7))
        self.assertEqual(parse("25 01 02 03"), d.Data(True, False, 1, 2, b"\x03"))

    def test_an_echo_is_dropped(self):
        for body in (octets("38 07"), octets("2b 01 02 03"), d.hello_body(d.DEVICE, d.Hello(True, 0, 1, 0, 256, 256))):
            frame = body + d.u32(d.crc32c((b"" if body[0] < 0x20 else SEED) + body))
            self.assertIsNotNone(d.parse_frame(frame, d.DEVICE, SEED))
            with self.assertRaises(d.Damaged):
                d.parse_frame(frame, d.GATEWAY, SEED)

    def test_lengths(self):
        with_crc = lambda body: body + d.u32(d.crc32c(SEED + body))
        self.assertEqual(d.parse_frame(with_crc(octets("23 01 02")), d.GATEWAY, SEED), d.Data(True, True, 1, 2, b""))
        for body in (b"", octets("20 01"), octets("30"), octets("30 01 02"), octets("40 01 02")):
            with self.assertRaises(d.Damaged):
                d.parse_frame(with_crc(body), d.GATEWAY, SEED)

    def test_another_version_is_reported_and_dropped(self):
        for body in (octets("11 01"), octets("11 01") + bytes(40)):
            link = d.Link(d.DEVICE, DEVICE_BOOT)
            link.poll(0)
            link.take(d.to_line(body)[:-1], 0)
            self.assertEqual(list(link.events), [("version", 1)])
            self.assertIsNone(link.poll(1))


class SequenceTest(unittest.TestCase):
    def test_place(self):
        for expected in (0, 1, 100, 127, 128, 200, 255):
            self.assertEqual(d.place(expected, expected), 0)
            for ahead in range(1, 128):
                self.assertEqual(d.place((expected + ahead) % 256, expected), 1)
            for old in range(128, 256):
                self.assertEqual(d.place((expected + old) % 256, expected), -1)


class MessageTest(unittest.TestCase):
    def test_varint(self):
        for number, encoded in ((0, "00"), (5, "05"), (127, "7f"), (128, "80 01"), (300, "ac 02"), (65535, "ff ff 03")):
            self.assertEqual(d.varint(number), octets(encoded))
            self.assertEqual(d.Reader(octets(encoded)).varint(), number)

    def test_to_gateway(self):
        message = octets("01 23 45 67 89 ab cd ef")
        self.assertEqual(d.attach_message("d1"), octets("00 02 64 31"))
        self.assertEqual(d.ack_message(message), octets("01 01 23 45 67 89 ab cd ef"))
        self.assertEqual(d.refuse_message(message, "not possible"), octets("02 01 23 45 67 89 ab cd ef 03"))
        self.assertEqual(d.subscribe_message(300), octets("03 ac 02"))
        self.assertEqual(d.unsubscribe_message(5), octets("04 05"))

    def test_to_device(self):
        fields = d.parse_to_device(octets("00 01 23 45 67 89 ab cd ef 01 05 68 65 6c 6c 6f"))
        self.assertEqual(fields, {"tag": d.PUSH, "message": octets("0123456789abcdef"), "channel": 1, "body": b"hello"})
        keys = d.octets_field(b"\x04" + bytes(64)) + d.octets_field(bytes(16))
        fields = d.parse_to_device(octets("01 ac 02 03 61 3a 62") + keys)
        self.assertEqual((fields["channel"], fields["push"]), (300, "a:b"))
        self.assertEqual(d.parse_to_device(octets("02 00 01")), {"tag": 2, "channel": 0, "reason": "unknown device"})
        self.assertEqual(d.parse_to_device(octets("03 05")), {"tag": 3, "channel": 5})

    def test_invalid(self):
        for message in ("", "04", "03", "03 05 00", "03 80", "02 00 05", "03 00", "00 01 02", "00 01 23 45 67 89 ab cd ef 01 05 68"):
            with self.assertRaises(d.Damaged):
                d.parse_to_device(octets(message))

    def test_device_id(self):
        self.assertTrue(d.is_device_id("d1") and d.is_device_id("A.b_c-9" + "x" * 25))
        self.assertFalse(d.is_device_id("") or d.is_device_id("x" * 33) or d.is_device_id("ä") or d.is_device_id("a b"))


class ExchangeTest(unittest.TestCase):
    """The exchange of section 7, octet for octet, with this implementation on both sides."""

    EXCHANGE = (
        ("D", "02 19 05 88 77 66 55 01 01 01 02 14 01 06 02 14 06 14 8d 00"),  # lost
        ("G", "02 11 05 44 33 22 11 01 01 01 01 02 01 06 01 ff 0d 33 d0 00"),
        ("D", "02 19 0a 88 77 66 55 44 33 22 11 14 01 06 02 39 fb 47 46 00"),
        ("G", "02 10 09 44 33 22 11 88 77 66 55 02 01 06 01 5c 04 f2 b6 00"),
        ("D", "02 2b 01 01 08 02 64 31 50 b3 f7 f2 00"),
        ("G", "07 30 01 81 dd 34 e1 00"),
        ("G", "02 21 02 01 0f 01 23 45 67 89 ab cd ef 01 05 8a 36 4b bc 00"),
        ("G", "0d 22 01 01 68 65 6c 6c 6f c6 fb e9 04 00"),
        ("D", "11 2b 01 02 01 01 23 45 67 89 ab cd ef 6f 78 a0 b0 00"),
        ("G", "07 30 02 75 2e 64 f2 00"),
    )

    def test_exchange(self):
        gateway = d.Link(d.GATEWAY, GATEWAY_BOOT, 256, 256)
        link = d.Link(d.DEVICE, DEVICE_BOOT, 20, 512)
        lines = []
        device = d.Device(link, "d1", lines.append, lambda fields: None)
        lines_octets = [(side, octets(text)) for side, text in self.EXCHANGE]
        messages = []
        for number, (side, expected) in enumerate(lines_octets):
            if number == 6:
                gateway.send(push_message(octets("0123456789abcdef"), 1, b"hello"))
            sent = gateway.poll(0) if side == "G" else device.poll(0)
            self.assertEqual(sent, expected, f"frame {number}")
            if number == 0:
                continue
            if side == "G":
                device.receive(sent, 0)
            else:
                gateway.take(sent[:-1], 0)
            while gateway.events:
                event = gateway.events.popleft()
                if event[0] == "message":
                    messages.append(event[1])
        self.assertIsNone(gateway.poll(0))
        self.assertIsNone(device.poll(0))
        self.assertEqual(messages, [octets("00 02 64 31"), octets("01 01 23 45 67 89 ab cd ef")])
        self.assertEqual(lines, [{"event": "received", "message": "0123456789abcdef", "channel": 1, "text": "hello"}])
        self.assertTrue(device.is_done(1))

    def test_second_before_encoding(self):
        (frame,) = frames_of(octets(self.EXCHANGE[1][1]))
        self.assertEqual(frame, octets("11 00 44 33 22 11 00 00 00 00 00 01 00 01 ff 0d 33 d0"))
        self.assertEqual(d.crc32c(frame[:-4]), 0xD0330DFF)


class LinkTest(unittest.TestCase):
    """Single rules of sections 4 and 5."""

    def opened(self, gateway_mtu=256, device_mtu=256, largest=d.MESSAGE_MAX):
        gateway = d.Link(d.GATEWAY, GATEWAY_BOOT, gateway_mtu, largest)
        link = d.Link(d.DEVICE, DEVICE_BOOT, device_mtu)
        for _ in range(6):
            self.pass_all(gateway, link, 0)
            self.pass_all(link, gateway, 0)
        self.assertTrue(gateway.open and link.open)
        gateway.events.clear()
        link.events.clear()
        return gateway, link

    def pass_all(self, sender, receiver, now):
        for frame in self.all_of(sender, now):
            receiver.take(frame[:-1], now)

    def all_of(self, sender, now):
        frames = []
        while (frame := sender.poll(now)) is not None:
            frames.append(frame)
        return frames

    def parsed(self, frame):
        frame = d.cobs_decode(frame[:-1])
        return d.parse_frame(frame, d.DEVICE if frame[0] & d.FROM_DEVICE else d.GATEWAY, SEED)

    def test_hello_each_second(self):
        link = d.Link(d.DEVICE, DEVICE_BOOT)
        self.assertIsNotNone(link.poll(500))
        self.assertIsNone(link.poll(1499))
        self.assertIsNotNone(link.poll(1500))
        self.assertIsNone(link.poll(1501))

    def test_one_hello_is_owed(self):
        gateway, link = self.opened()
        for _ in range(3):
            link.take(d.to_line(d.hello_body(d.GATEWAY, d.Hello(True, 0, GATEWAY_BOOT, DEVICE_BOOT, 256, 256)))[:-1], 0)
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Hello(False, 0, DEVICE_BOOT, GATEWAY_BOOT, 256, 4096))

    def test_another_boot_id_ends_the_session(self):
        gateway, link = self.opened()
        link.send(b"old")
        link.take(d.to_line(d.hello_body(d.GATEWAY, d.Hello(True, 0, 7, 0, 256, 256)))[:-1], 0)
        self.assertFalse(link.open)
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Hello(True, 0, DEVICE_BOOT + 1, 7, 256, 4096))

    def test_boot_id_zero_is_skipped(self):
        link = d.Link(d.DEVICE, 0xFFFFFFFF)
        link.take(d.to_line(d.hello_body(d.GATEWAY, d.Hello(False, 0, 7, 0xFFFFFFFF, 256, 256)))[:-1], 0)
        self.assertTrue(link.open)
        link.take(d.to_line(d.hello_body(d.GATEWAY, d.Hello(False, 0, 8, 0, 256, 256)))[:-1], 0)
        self.assertFalse(link.open)
        self.assertEqual(link.boot, 1)

    def test_gap_and_resending_once(self):
        gateway, link = self.opened()
        for number in range(4):
            gateway.send(bytes([number]))
        frames = self.all_of(gateway, 0)
        self.assertEqual(len(frames), 4)
        for frame in frames[1:]:
            link.take(frame[:-1], 0)
        (gap,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(gap), d.Ack(True, 0))
        gateway.take(gap[:-1], 10)
        self.assertEqual(self.all_of(gateway, 10), frames)
        gateway.take(gap[:-1], 11)
        self.assertEqual(self.all_of(gateway, 11), [])

    def test_copy_is_acknowledged_again(self):
        gateway, link = self.opened()
        gateway.send(b"x")
        (frame,) = self.all_of(gateway, 0)
        link.take(frame[:-1], 0)
        self.assertEqual([self.parsed(f) for f in self.all_of(link, 0)], [d.Ack(False, 1)])
        link.take(frame[:-1], 0)
        self.assertEqual([self.parsed(f) for f in self.all_of(link, 0)], [d.Ack(False, 1)])
        self.assertEqual(list(link.events), [("message", b"x")])

    def test_ack_out_of_range_is_ignored(self):
        gateway, link = self.opened()
        gateway.send(b"x")
        self.all_of(gateway, 0)
        for gap, ack in ((False, 2), (True, 2), (False, 255), (True, 128)):
            gateway.take(d.to_line(d.ack_body(d.DEVICE, d.Ack(gap, ack)), SEED)[:-1], 0)
            self.assertEqual(self.all_of(gateway, 0), [])
        self.assertEqual(len(gateway.flights), 1)

    def test_silence(self):
        gateway, link = self.opened(device_mtu=64)
        gateway.send(b"x")
        now, sendings = 0, []
        while gateway.open:
            for frame in self.all_of(gateway, now):
                if isinstance(self.parsed(frame), d.Data):
                    sendings.append(now)
            now += 100
        self.assertEqual(sendings, [0, 1000, 3000, 7000, 15000, 23000])
        self.assertEqual(gateway.boot, GATEWAY_BOOT + 1)
        self.assertEqual(now - 100, 30000)

    def test_window(self):
        gateway, link = self.opened()
        for number in range(100):
            gateway.send(bytes([number]))
        most = 0
        sizes = []
        while True:
            frames = self.all_of(gateway, 0)
            if not frames:
                break
            sizes.append(len(frames))
            for frame in frames:
                link.take(frame[:-1], 0)
            self.pass_all(link, gateway, 0)
        self.assertEqual(sizes[:4], [4, 8, 16, 16])
        self.assertEqual(sum(sizes), 100)

    def test_too_large(self):
        gateway, link = self.opened(largest=100)
        self.assertFalse(link.send(bytes(101)))
        self.assertTrue(link.send(bytes(100)))
        send = lambda first, last, seq, payload: gateway.take(
            d.to_line(d.data_body(d.DEVICE, d.Data(first, last, seq, 0, payload)), SEED)[:-1], 0
        )
        send(True, False, 0, bytes(60))
        send(False, False, 1, bytes(60))
        send(False, True, 2, bytes(60))
        send(False, True, 3, b"outside")
        send(True, False, 4, b"half")
        send(True, True, 5, b"whole")
        send(True, True, 6, b"")
        self.assertEqual([e[1] for e in gateway.events], [b"whole", b""])
        self.assertEqual(gateway.expected, 7)


class LossySimulation:
    """Two links over a line that loses, doubles and damages octets. The gateway pushes, the device acknowledges."""

    def __init__(self, seed, loss, gateway_mtu, device_mtu, count, restarts=False):
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0
        self.gateway_mtu = gateway_mtu
        self.restarts = restarts
        self.lines = []
        link = d.Link(d.DEVICE, self.rng.randint(1, 0xFFFFFFFF), device_mtu)
        self.device = d.Device(link, "lossy", self.lines.append, lambda fields: None)
        self.pushes = {}
        for number in range(count):
            message = number.to_bytes(8, "big")
            self.pushes[message] = self.rng.randbytes(self.rng.choice((0, 5, 300, 4000)))
        self.unacknowledged = dict(self.pushes)
        self.start_gateway()
        self.wire = {"down": [], "up": []}

    def start_gateway(self):
        self.gateway = d.Link(d.GATEWAY, self.rng.randint(1, 0xFFFFFFFF), self.gateway_mtu)
        self.gateway_splitter = d.Splitter(self.gateway_mtu)

    def damage(self, frame):
        out = bytearray()
        for octet in frame:
            chance = self.rng.random()
            if chance < self.loss:
                continue
            if chance < 2 * self.loss:
                out.append(octet)
            if chance < 3 * self.loss:
                octet ^= 1 << self.rng.randrange(8)
            out.append(octet)
        return bytes(out)

    def gateway_events(self):
        while self.gateway.events:
            event = self.gateway.events.popleft()
            if event[0] != "message":
                continue
            if event[1][0] == d.ATTACH:
                assert event[1] == d.attach_message("lossy")
                for message, body in self.unacknowledged.items():
                    assert self.gateway.send(push_message(message, 1, body))
            else:
                assert event[1][0] == d.ACK and len(event[1]) == 9
                self.unacknowledged.pop(event[1][1:], None)

    def step(self):
        self.now += 5
        if self.restarts and self.rng.random() < 0.002:
            self.start_gateway()
        for name, side in (("down", self.gateway), ("up", self.device)):
            for _ in range(3):
                frame = side.poll(self.now)
                if frame is not None:
                    self.wire[name].append((self.now + 20, self.damage(frame)))
        self.gateway_events()
        while self.wire["down"] and self.wire["down"][0][0] <= self.now:
            self.device.receive(self.wire["down"].pop(0)[1], self.now)
        while self.wire["up"] and self.wire["up"][0][0] <= self.now:
            for encoded in self.gateway_splitter.feed(self.wire["up"].pop(0)[1]):
                self.gateway.take(encoded, self.now)
                self.gateway_events()

    def run(self, limit_ms):
        while not (self.device.is_done(len(self.pushes)) and not self.unacknowledged):
            assert self.now < limit_ms, "does not come to an end"
            self.step()
        received = {}
        for line in self.lines:
            if line["event"] == "received":
                assert line["message"] not in received, "given to the application twice"
                body = line["text"].encode() if "text" in line else bytes.fromhex(line["hex"])
                received[line["message"]] = body
        assert received == {message.hex(): body for message, body in self.pushes.items()}
        return self


class LossyTest(unittest.TestCase):
    def test_lossless(self):
        simulation = LossySimulation(0, 0, 256, 256, 20).run(100_000)
        self.assertEqual([line["event"] for line in simulation.lines], ["received"] * 20)
        self.assertEqual([line["message"] for line in simulation.lines], [message.hex() for message in simulation.pushes])

    def test_lossy(self):
        for seed in range(12):
            for gateway_mtu, device_mtu in ((256, 20), (64, 256), (1024, 1024)):
                with self.subTest(seed=seed, gateway_mtu=gateway_mtu, device_mtu=device_mtu):
                    loss = 0.0001 if max(gateway_mtu, device_mtu) == 1024 else 0.003
                    LossySimulation(seed, loss, gateway_mtu, device_mtu, 8).run(10_000_000)

    def test_restarting_gateway(self):
        for seed in range(20):
            with self.subTest(seed=seed):
                LossySimulation(seed, 0.0002, 256, 128, 8, restarts=True).run(10_000_000)


class ToyGateway:
    """A gateway for one device, over a file descriptor: pushes what it is given, as long as it is not acknowledged."""

    def __init__(self, boot, pushes):
        self.link = d.Link(d.GATEWAY, boot, 256)
        self.splitter = d.Splitter(256)
        self.pushes = dict(pushes)
        self.attached = []

    def serve(self, descriptor, done, garbage=b""):
        """Until `done` is true, or the line ends."""
        os.set_blocking(descriptor, False)
        out = bytearray(garbage)
        while not done():
            while not out and (frame := self.link.poll(d.now_ms())) is not None:
                out += frame
            self.events()
            readable, writable, _ = select.select([descriptor], [descriptor] if out else [], [], 0.02)
            try:
                if writable:  # a frame in several pieces
                    del out[: os.write(descriptor, out[:7])]
                if readable:
                    octets_of_line = os.read(descriptor, 4096)
                    if not octets_of_line:
                        return
                    for encoded in self.splitter.feed(octets_of_line):
                        self.link.take(encoded, d.now_ms())
                        self.events()
            except OSError:
                return

    def events(self):
        while self.link.events:
            event = self.link.events.popleft()
            if event[0] != "message":
                continue
            message = event[1]
            if message[0] == d.ATTACH:
                self.attached.append(message[2:].decode())
                for name, body in self.pushes.items():
                    self.link.send(push_message(name, 3, body))
            elif message[0] == d.ACK:
                self.pushes.pop(message[1:], None)


PUSHES = {b"message1": b"hello", b"message2": "grüße".encode() * 300, b"message3": b"\xff\0\xfe"}


class ProgramTest(unittest.TestCase):
    """The program itself, over a pseudo-terminal and over a Unix socket."""

    def start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, PROGRAM, "--id", "d1", "--timeout", "20", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def check_lines(self, lines, restarted=False):
        events = [json.loads(line) for line in lines]
        received = [event for event in events if event["event"] == "received"]
        self.assertEqual([event["message"] for event in received], [name.hex() for name in PUSHES])
        self.assertEqual([event["channel"] for event in received], [3, 3, 3])
        self.assertEqual(received[0]["text"], "hello")
        self.assertEqual(received[1]["text"], "grüße" * 300)
        self.assertEqual(received[2]["hex"], "ff00fe")
        if not restarted:
            self.assertEqual(len(events), 3)

    def test_terminal(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "link")
            process = self.start("--count", "3", "--symlink", path, "--mtu", "64")
            name = process.stdout.readline().removesuffix("\n")
            self.assertRegex(name, "^link /dev/pts/[0-9]+$")
            self.assertEqual(os.readlink(path), name.removeprefix("link "))
            descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
            try:
                gateway = ToyGateway(5, PUSHES)
                gateway.serve(descriptor, lambda: process.poll() is not None, garbage=b"\x03garbage" * 300)
            finally:
                os.close(descriptor)
            self.assertEqual(process.wait(), 0)
            self.assertEqual(gateway.attached, ["d1"])
            self.assertEqual(gateway.pushes, {})
            self.check_lines(process.stdout.read().splitlines())
            self.assertFalse(os.path.lexists(path))

    def test_gateway_restarts(self):
        process = self.start("--count", "3")
        name = process.stdout.readline().split()[1]
        first = ToyGateway(5, dict(list(PUSHES.items())[:1]))
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        first.serve(descriptor, lambda: first.attached and not first.pushes)
        os.close(descriptor)
        self.assertIsNone(process.poll())
        second = ToyGateway(99, PUSHES)
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        second.serve(descriptor, lambda: process.poll() is not None)
        os.close(descriptor)
        self.assertEqual(process.wait(), 0)
        lines = process.stdout.read().splitlines()
        self.check_lines(lines, restarted=True)
        self.assertEqual(json.loads(lines[1])["event"], "duplicate")

    def test_unix(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            process = self.start("--count", "3", "--unix", path)
            time.sleep(0.3)  # it has to wait for the socket
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen()
                listener.settimeout(10)
                with listener.accept()[0] as connection:
                    connection.recv(3)  # and to connect anew
                with listener.accept()[0] as connection:
                    gateway = ToyGateway(5, PUSHES)
                    gateway.serve(connection.fileno(), lambda: process.poll() is not None)
            self.assertEqual(process.wait(), 0)
            self.check_lines(process.stdout.read().splitlines())

    def test_timeout(self):
        process = subprocess.run(
            [sys.executable, PROGRAM, "--id", "d1", "--timeout", "0.3"],
            capture_output=True,
            text=True,
        )
        self.assertEqual(process.returncode, 1)


if __name__ == "__main__":
    unittest.main()
