#!/usr/bin/env python3
"""Tests of `device.py`: the worked examples of the specification of the link protocol octet for octet, the edges of
its encodings, single rules of sessions, and the program itself on real lines. Whole sessions over bad lines are in
`device_selftest.py`.

It was written from the specification of the link protocol alone. Run it with `python3 device_test.py`.
"""

import json
import os
import random
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import device as d
from device_selftest import GatewayEnd, Push

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "device.py")
SPECIFICATION = os.path.join(HERE, "..", "..", "src", "wire", "mod.rs")  # its text, section 7 alone
GATEWAY_BOOT = 0x11223344
DEVICE_BOOT = 0x55667788
SEED = d.session_seed(GATEWAY_BOOT, DEVICE_BOOT)


def octets(text):
    return bytes.fromhex(text)


def frames_of(octets_of_line, mtu=d.MTU_MAX):
    return [d.cobs_decode(encoded) for encoded in d.Splitter(mtu).feed(octets_of_line)]


def with_crc(body, seed=SEED):
    return body + d.u32(d.crc32c(seed + body))


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

    def test_frames_fit_the_mtu(self):
        payloads = [d.frame_max(mtu) - d.DATA_OCTETS_MIN for mtu in (20, 64, 256, 1024)]
        self.assertEqual(payloads, [10, 54, 246, 1010])
        for mtu in range(d.MTU_MIN, d.MTU_MAX + 1):
            for filler in (b"\0", b"\x55"):
                self.assertLessEqual(len(d.cobs_encode(filler * d.frame_max(mtu))) + 1, mtu)


class ChecksumTest(unittest.TestCase):
    def test_check_value(self):
        self.assertEqual(d.crc32c(b"123456789"), 0xE3069283)

    def test_session_seed(self):
        self.assertEqual(SEED, octets("44 33 22 11 88 77 66 55"))
        body = octets("30 01 00 00 00 01")
        self.assertEqual(d.to_line(body, SEED), d.cobs_encode(with_crc(body)) + b"\0")
        self.assertEqual(len(d.to_line(body, SEED)), 12)

    def test_wrong_session(self):
        frame = with_crc(octets("30 01 00 00 00 01"))
        self.assertEqual(d.parse_frame(frame, d.GATEWAY, SEED), d.Ack(False, 1, 0, 256))
        for seed in (None, b"", d.session_seed(GATEWAY_BOOT + 1, DEVICE_BOOT), d.session_seed(DEVICE_BOOT, GATEWAY_BOOT)):
            with self.assertRaises(d.Damaged):
                d.parse_frame(frame, d.GATEWAY, seed)

    def test_every_changed_bit_is_noticed(self):
        frame = with_crc(octets("11 01 44 33 22 11 00 00 00 00 40 00 00 01"), b"")
        self.assertEqual(d.parse_frame(frame, d.GATEWAY, None), d.Hello(True, 1, GATEWAY_BOOT, 0, 64, 256))
        for bit in range(len(frame) * 8):
            changed = bytearray(frame)
            changed[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(d.Damaged):
                d.parse_frame(bytes(changed), d.GATEWAY, None)


class FrameTest(unittest.TestCase):
    def parse(self, text, seed=SEED):
        return d.parse_frame(with_crc(octets(text)), d.GATEWAY, seed)

    def test_data(self):
        self.assertEqual(self.parse("20 07 34 12"), d.Data(False, 7, 0x1234, None, None, b""))
        self.assertEqual(self.parse("21 07 34 12 aa bb"), d.Data(True, 7, 0x1234, None, None, b"\xaa\xbb"))
        self.assertEqual(self.parse("22 07 34 12 09 01 80"), d.Data(False, 7, 0x1234, (9, 0x8001), None, b""))
        self.assertEqual(self.parse("24 07 34 12 00 01 aa"), d.Data(False, 7, 0x1234, None, 256, b"\xaa"))
        self.assertEqual(self.parse("27 07 34 12 09 01 80 00 01 aa"), d.Data(True, 7, 0x1234, (9, 0x8001), 256, b"\xaa"))

    def test_emitting_is_the_reverse(self):
        rng = random.Random(2)
        for _ in range(500):
            ack = (rng.randrange(256), rng.randrange(65536)) if rng.random() < 0.5 else None
            limit = rng.randrange(65536) if rng.random() < 0.5 else None
            payload = rng.randbytes(rng.randrange(20))
            data = d.Data(rng.random() < 0.5, rng.randrange(256), rng.randrange(65536), ack, limit, payload)
            self.assertEqual(d.parse_frame(with_crc(d.data_body(d.GATEWAY, data)), d.GATEWAY, SEED), data)
            ack = d.Ack(rng.random() < 0.5, rng.randrange(256), rng.randrange(65536), rng.randrange(65536))
            self.assertEqual(d.parse_frame(with_crc(d.ack_body(d.DEVICE, ack)), d.DEVICE, SEED), ack)

    def test_unknown_flags_are_ignored(self):
        self.assertEqual(self.parse("36 07 00 00 00 01"), d.Ack(False, 7, 0, 256))
        probe = with_crc(octets("46 05 aa"), b"")
        self.assertEqual(d.parse_frame(probe, d.GATEWAY, None), d.Probe(False, 5, b"\xaa"))

    def test_an_echo_is_dropped(self):
        hello = d.hello_body(d.DEVICE, d.Hello(True, 1, 1, 0, 256, 256))
        for body in (octets("38 07 00 00 00 01"), octets("28 01 00 00 03"), hello, octets("48 01")):
            frame = with_crc(body, SEED if body[0] & 0xF0 in (d.KIND_DATA, d.KIND_ACK) else b"")
            self.assertIsNotNone(d.parse_frame(frame, d.DEVICE, SEED))
            with self.assertRaises(d.Damaged):
                d.parse_frame(frame, d.GATEWAY, SEED)

    def test_lengths(self):
        for text in ("20 01 00", "22 01 00 00 05 00", "24 01 00 00 05", "26 01 00 00 05 00 00 00", "30 01 00 00 00",
                     "30 01 00 00 00 01 00", "50 01 00 00", "00 01 00 00"):
            with self.assertRaises(d.Damaged, msg=text):
                self.parse(text)
        for text in ("40", "10 01 01 00 00 00", "10"):
            with self.assertRaises(d.Damaged, msg=text):
                d.parse_frame(with_crc(octets(text), b""), d.GATEWAY, SEED)

    def test_hello_values(self):
        parse = lambda hello: d.parse_frame(with_crc(d.hello_body(d.GATEWAY, hello), b""), d.GATEWAY, None)
        self.assertEqual(parse(d.Hello(False, 1, 5, 6, 65535, 256)).mtu, 1024)
        for hello in (d.Hello(False, 1, 0, 6, 20, 32), d.Hello(False, 1, 5, 6, 19, 32), d.Hello(False, 1, 5, 6, 20, 31)):
            with self.assertRaises(d.Damaged):
                parse(hello)

    def test_another_version_is_reported_and_dropped(self):
        for version in (0, 2):
            for body in (bytes([0x11, version]), bytes([0x11, version]) + bytes(40)):
                link = d.Link(d.DEVICE, DEVICE_BOOT)
                link.poll(0)
                link.take(d.to_line(body)[:-1], 0)
                self.assertEqual(list(link.events), [("version", version)])
                self.assertIsNone(link.poll(1))


class MessageTest(unittest.TestCase):
    def test_varint(self):
        for number, encoded in ((0, "00"), (5, "05"), (127, "7f"), (128, "80 01"), (300, "ac 02"), (65535, "ff ff 03")):
            self.assertEqual(d.varint(number), octets(encoded))
            self.assertEqual(d.Reader(octets(encoded)).varint(16), number)
        self.assertEqual(d.Reader(d.varint((1 << 64) - 1)).varint(64), (1 << 64) - 1)
        for bits in (16, 32, 64):
            with self.assertRaises(d.Damaged):
                d.Reader(d.varint(1 << bits)).varint(bits)

    def test_to_gateway(self):
        message = octets("01 23 45 67 89 ab cd ef")
        self.assertEqual(d.attach_message("d1", 510, 0, 16, 0), octets("00 02 64 31 fe 03 00 10 00"))
        self.assertEqual(d.ack_message(message), octets("01 01 23 45 67 89 ab cd ef"))
        self.assertEqual(d.refuse_message(message, "not possible"), octets("02 01 23 45 67 89 ab cd ef 03"))
        self.assertEqual(d.subscribe_message(300), octets("03 ac 02"))
        self.assertEqual(d.unsubscribe_message(5), octets("04 05"))
        self.assertEqual(d.rotate_message(5), octets("05 05"))
        self.assertEqual(d.sleep_message(600), octets("06 d8 04"))
        self.assertEqual(d.awake_message(), octets("07"))
        self.assertEqual(d.ask_message(), octets("08"))

    def test_to_device(self):
        status = d.parse_to_device(octets("00 01 05") + d.varint(1_700_000_000_000))
        self.assertEqual(status, {"tag": d.STATUS, "uplink": "connected", "waiting": 5, "time": 1_700_000_000_000})
        fields = d.parse_to_device(octets("01 01 23 45 67 89 ab cd ef 01 04 05 68 65 6c 6c 6f"))
        message = {"message": octets("0123456789abcdef"), "channel": 1, "age": 4, "body": b"hello"}
        self.assertEqual(fields, {"tag": d.PUSH, **message})
        keys = d.octets_field(b"\x04" + bytes(64)) + d.octets_field(bytes(16))
        fields = d.parse_to_device(octets("02 ac 02 03 61 3a 62") + keys)
        self.assertEqual((fields["channel"], fields["push"]), (300, "a:b"))
        self.assertEqual(d.parse_to_device(octets("03 00 01")), {"tag": 3, "channel": 0, "reason": "unknown device"})
        self.assertEqual(d.parse_to_device(octets("04 05")), {"tag": 4, "channel": 5})

    def test_invalid(self):
        for message in ("", "05", "04", "04 05 00", "04 80", "03 00 04", "04 00", "04 80 80 04", "01 01 02", "00 03 00 00",
                        "00 01 00", "01 01 23 45 67 89 ab cd ef 01 00 05 68", "02 01 01 ff 41 00 10 00"):
            with self.assertRaises(d.Damaged, msg=message):
                d.parse_to_device(octets(message))

    def test_device_id(self):
        self.assertTrue(d.is_device_id("d1") and d.is_device_id("A.b_c-9" + "x" * 25))
        self.assertFalse(d.is_device_id("") or d.is_device_id("x" * 33) or d.is_device_id("ä") or d.is_device_id("a b"))


class MemoryTest(unittest.TestCase):
    def test_the_last_are_kept_in_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "ids")
            memory = d.Memory(4, path)
            for number in (0, 1, 2, 3, 1, 4):
                memory.keep(bytes([number]) * 8)
            for memory in (memory, d.Memory(4, path)):
                self.assertEqual([bytes([number]) * 8 in memory for number in range(5)], [False, True, True, True, True])


class ExchangeTest(unittest.TestCase):
    """The exchange of section 7: two of these links have it, and the frames of the text are understood."""

    def ends(self):
        gateway = d.Link(d.GATEWAY, GATEWAY_BOOT, 64, 256)
        link = d.Link(d.DEVICE, DEVICE_BOOT, 20, 512, 0)
        lines = []
        memory = d.Memory(16)
        return gateway, d.Device(link, "d1", lines.append, lambda fields: None, 510, memory), lines

    def test_exchange(self):
        gateway, device, lines = self.ends()
        end = GatewayEnd(gateway, "d1", [Push(octets("0123456789abcdef"), 1, b"hello", at=-2500)])
        self.assertEqual(device.poll(0), d.to_line(octets("19 01 88 77 66 55 00 00 00 00 14 00 00 02")))  # lost
        self.assertEqual(end.poll(0), d.to_line(octets("11 01 44 33 22 11 00 00 00 00 40 00 00 01")))
        device.receive(d.to_line(octets("11 01 44 33 22 11 00 00 00 00 40 00 00 01")), 0)
        self.assertEqual(device.poll(0), d.to_line(octets("19 01 88 77 66 55 44 33 22 11 14 00 00 02")))
        end.receive(d.to_line(octets("19 01 88 77 66 55 44 33 22 11 14 00 00 02")), 0)
        self.assertEqual(end.poll(0), d.to_line(octets("10 01 44 33 22 11 88 77 66 55 40 00 00 01")))
        device.receive(d.to_line(octets("10 01 44 33 22 11 88 77 66 55 40 00 00 01")), 0)
        attach = octets("28 00 00 00 09 00 02 64 31 fe 03 00 10 00")
        self.assertEqual(device.poll(0), d.to_line(attach, SEED))
        end.receive(d.to_line(attach, SEED), 0)
        while (down := end.poll(0)) is not None or (up := device.poll(0)) is not None:
            if down is not None:
                self.assertLessEqual(len(down), 20)
                device.receive(down, 0)
            else:
                end.receive(up, 0)
        (line,) = lines
        expected = {"message": "0123456789abcdef", "channel": 1, "age": 3, "urgent": False, "text": "hello"}
        self.assertEqual(line, {"event": "received", **expected})
        self.assertTrue(device.is_done(1))
        self.assertEqual(end.pushes, {})

    def test_text(self):
        """The frames of the text: a gateway and a device understand each other's."""
        if not os.path.exists(SPECIFICATION):
            self.skipTest("there is no text")
        with open(SPECIFICATION, encoding="utf-8") as file:
            section = file.read().partition("# 7. ")[2].partition("# 8. ")[0]
        frames = re.findall(r"^//! +([GD]) +((?:[0-9a-f]{2} )+?00)(?= |$)", section, re.MULTILINE)
        if not frames:
            self.skipTest("the text has no frames")
        gateway, device, lines = self.ends()
        messages = []
        for number, (side, text) in enumerate(frames):
            frame = octets(text)
            with self.subTest(number=number, frame=text):
                seed = SEED if d.cobs_decode(frame[:-1])[0] & 0xF0 in (d.KIND_DATA, d.KIND_ACK) else None
                d.parse_frame(d.cobs_decode(frame[:-1]), d.DEVICE if side == "D" else d.GATEWAY, seed)
            # Each side sends what it has to, and hears what the other side sent in the text.
            for end in (gateway, device):
                while end.poll(0) is not None:
                    pass
            if number == 0:
                continue
            if side == "G":
                device.receive(frame, 0)
            else:
                gateway.take(frame[:-1], 0)
            while (event := gateway.next_event()) is not None:
                if event[0] == "message":
                    messages.append(event[1])
        self.assertEqual(messages[0], d.attach_message("d1", 510, 0, 16, 0))
        self.assertEqual(messages[-1], d.ack_message(octets("0123456789abcdef")))
        (line,) = lines
        self.assertEqual((line["message"], line["channel"], line["text"]), ("0123456789abcdef", 1, "hello"))


class LinkTest(unittest.TestCase):
    """Single rules of sections 4 and 5."""

    def opened(self, gateway_mtu=256, device_mtu=256, gateway_window=8192, window=8192, urgent=0):
        gateway = d.Link(d.GATEWAY, GATEWAY_BOOT, gateway_mtu, gateway_window)
        link = d.Link(d.DEVICE, DEVICE_BOOT, device_mtu, window, urgent)
        for _ in range(6):
            self.pass_all(gateway, link, 0)
            self.pass_all(link, gateway, 0)
        self.assertTrue(gateway.open and link.open)
        gateway.allow_urgent(urgent)
        self.messages(gateway)
        self.messages(link)
        return gateway, link

    def pass_all(self, sender, receiver, now):
        for frame in self.all_of(sender, now):
            receiver.take(frame[:-1], now)

    def all_of(self, sender, now):
        frames = []
        while (frame := sender.poll(now)) is not None:
            frames.append(frame)
        return frames

    def messages(self, link):
        messages = []
        while (event := link.next_event()) is not None:
            if event[0] == "message":
                messages.append(event[1])
        return messages

    def parsed(self, frame):
        frame = d.cobs_decode(frame[:-1])
        return d.parse_frame(frame, d.DEVICE if frame[0] & d.FROM_DEVICE else d.GATEWAY, SEED)

    def give(self, link, frame, now=0):
        """A frame of the gateway to the device."""
        body = d.data_body(d.GATEWAY, frame) if isinstance(frame, d.Data) else d.ack_body(d.GATEWAY, frame)
        link.take(d.to_line(body, SEED)[:-1], now)

    def hello(self, link, boot, echo, ask=True):
        link.take(d.to_line(d.hello_body(d.GATEWAY, d.Hello(ask, 1, boot, echo, 256, 8192)))[:-1], 0)

    def test_hello_each_second(self):
        link = d.Link(d.DEVICE, DEVICE_BOOT)
        self.assertIsNotNone(link.poll(500))
        self.assertIsNone(link.poll(1499))
        self.assertIsNotNone(link.poll(1500))
        self.assertIsNone(link.poll(1501))

    def test_one_hello_is_owed(self):
        _, link = self.opened()
        for _ in range(3):
            self.hello(link, GATEWAY_BOOT, DEVICE_BOOT)
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Hello(False, 1, DEVICE_BOOT, GATEWAY_BOOT, 256, 8192))

    def test_another_boot_id_ends_the_session(self):
        _, link = self.opened()
        link.send(b"old")
        self.hello(link, 7, 0)
        self.assertFalse(link.open)
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Hello(True, 1, DEVICE_BOOT + 1, 7, 256, 8192))

    def test_boot_id_zero_is_skipped(self):
        link = d.Link(d.DEVICE, 0xFFFFFFFF)
        self.hello(link, 7, 0xFFFFFFFF, ask=False)
        self.assertTrue(link.open)
        self.hello(link, 8, 0, ask=False)
        self.assertFalse(link.open)
        self.assertEqual(link.boot, 1)

    def test_messages_share_frames(self):
        gateway, link = self.opened()
        for number in range(4):
            gateway.send(bytes([number]))
        (frame,) = self.all_of(gateway, 0)
        self.assertEqual(self.parsed(frame), d.Data(False, 0, 0, None, None, octets("01 00 01 01 01 02 01 03")))
        link.take(frame[:-1], 0)
        self.assertEqual(self.messages(link), [b"\0", b"\1", b"\2", b"\3"])

    def test_an_ack_names_what_arrived_and_the_rest_is_lost(self):
        gateway, link = self.opened(device_mtu=20)
        gateway.send(bytes(59))
        frames = self.all_of(gateway, 0)
        self.assertEqual([self.parsed(frame).offset for frame in frames], [0, 10, 20, 30, 40, 50])
        for number in (1, 2, 4):
            link.take(frames[number][:-1], 0)
        (ack,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(ack), d.Ack(False, 4, 0b0110, 8192))
        gateway.take(ack[:-1], 10)
        again = [self.parsed(frame) for frame in self.all_of(gateway, 10)]
        self.assertEqual([(data.number, data.offset, len(data.payload)) for data in again], [(6, 0, 10), (7, 30, 10)])
        self.assertEqual([flight.number for flight in gateway.flights], [5, 6, 7])
        gateway.take(ack[:-1], 11)  # a copy
        self.assertEqual(self.all_of(gateway, 11), [])

    def test_numbers_around_256(self):
        for first in (0, 250, 255):
            link = self.opened()[1]
            for step in (0, 1, 3, 2, 9):
                self.give(link, d.Data(False, (first + step) % 256, 0, None, None, b"\1x"))
            (frame,) = self.all_of(link, 0)
            before = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8  # 3, 2, 1 and 0
            self.assertEqual(self.parsed(frame), d.Ack(False, (first + 9) % 256, before, 8192))

    def test_an_ack_rides_on_data(self):
        gateway, link = self.opened()
        gateway.send(b"x")
        self.pass_all(gateway, link, 0)
        link.send(b"y")
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Data(False, 0, 0, (0, 0), None, b"\1y"))

    def test_a_copy_is_acknowledged_again(self):
        gateway, link = self.opened()
        gateway.send(b"x")
        (frame,) = self.all_of(gateway, 0)
        for _ in range(2):
            link.take(frame[:-1], 0)
            (ack,) = self.all_of(link, 0)
            self.assertEqual((self.parsed(ack).newest, self.parsed(ack).before), (0, 0))
        self.assertEqual(self.messages(link), [b"x"])

    def test_an_ack_of_a_future_number_is_ignored(self):
        _, link = self.opened()
        link.send(b"x")
        self.all_of(link, 0)
        for newest in (1, 2, 127, 128):
            self.give(link, d.Ack(False, newest, 0xFFFF, 8192))
            self.assertEqual(len(link.flights), 1)
        self.give(link, d.Ack(False, 255, 0xFFFF, 8192))
        self.assertEqual((len(link.flights), self.all_of(link, 0)), (1, []))

    def test_sixteen_numbers_in_flight(self):
        gateway, link = self.opened(device_mtu=20)
        gateway.send(bytes(400))
        frames = self.all_of(gateway, 0)
        self.assertEqual(len(frames), 16)
        link.take(frames[0][:-1], 0)
        link.take(frames[2][:-1], 0)
        self.pass_all(link, gateway, 0)
        self.assertEqual([self.parsed(frame).number for frame in self.all_of(gateway, 0)], [16, 17, 18])

    def test_limit(self):
        gateway, link = self.opened(device_mtu=64, window=100)
        gateway.send(b"a" * 59)
        gateway.send(b"b" * 59)
        frames = self.all_of(gateway, 0)
        self.assertEqual([(self.parsed(f).offset, len(self.parsed(f).payload)) for f in frames], [(0, 54), (54, 46)])
        for frame in frames:
            link.take(frame[:-1], 0)
        (ack,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(ack), d.Ack(False, 1, 1, 100))
        self.assertEqual(self.messages(link), [b"a" * 59])
        (ack,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(ack), d.Ack(False, 1, 1, 160))
        gateway.take(ack[:-1], 5)
        (frame,) = self.all_of(gateway, 5)
        self.assertEqual((self.parsed(frame).offset, len(self.parsed(frame).payload)), (100, 20))
        self.assertFalse(gateway.send(bytes(99)))
        self.assertTrue(gateway.send(bytes(98)))

    def test_a_payload_behind_the_limit_is_dropped(self):
        _, link = self.opened(window=100)
        self.give(link, d.Data(False, 0, 60, None, None, bytes(41)))
        self.assertEqual(self.all_of(link, 0), [])
        self.give(link, d.Data(False, 1, 60, None, None, bytes(40)))
        (ack,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(ack), d.Ack(False, 1, 0, 100))

    def test_limits_that_count(self):
        _, link = self.opened()
        for limit, known in ((8191, 8192), (8193, 8193), (8192, 8193), (8193 + 32767, 40960), (8192, 40960), (0, 65536)):
            self.give(link, d.Ack(False, 0, 0, limit))
            self.assertEqual(link.outgoing[False].limit, known)

    def test_asking_for_credit(self):
        gateway, link = self.opened(device_mtu=64, window=50)
        gateway.send(bytes(48))
        gateway.send(b"x")
        self.pass_all(gateway, link, 0)
        self.pass_all(link, gateway, 0)
        self.assertEqual(self.messages(link), [bytes(48)])
        self.all_of(link, 10)  # lost
        self.all_of(gateway, 10)
        at = gateway.wake_at()
        self.assertEqual(at, 2010)
        (frame,) = self.all_of(gateway, at)
        self.assertEqual((self.parsed(frame).offset, self.parsed(frame).payload), (50, b""))
        link.take(frame[:-1], at)
        (ack,) = self.all_of(link, at)
        self.assertEqual(self.parsed(ack).limit, 99)
        gateway.take(ack[:-1], at)
        self.pass_all(gateway, link, at)
        self.assertEqual(self.messages(link), [b"x"])

    def test_the_urgent_stream(self):
        gateway, link = self.opened(device_mtu=64, urgent=60)
        gateway.send(bytes(100))
        gateway.poll(0)
        self.assertFalse(gateway.send(bytes(59), urgent=True))
        for _ in range(3):
            self.assertTrue(gateway.send(b"u" * 29, urgent=True))
        frames = [self.parsed(frame) for frame in self.all_of(gateway, 0)]
        pieces = lambda frames: [(frame.urgent, frame.offset, len(frame.payload)) for frame in frames]
        self.assertEqual(pieces(frames), [(True, 0, 54), (True, 54, 6), (False, 54, 47)])
        self.give(link, frames[0])
        self.give(link, frames[1])
        self.assertEqual(self.messages(link), [b"u" * 29] * 2)
        (ack,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(ack), d.Ack(True, 2, 1, 120))
        gateway.take(ack[:-1], 1)
        again = [self.parsed(frame) for frame in self.all_of(gateway, 1)]
        self.assertEqual(pieces(again), [(True, 60, 30), (False, 0, 54)])

    def test_broken_rules(self):
        for window, payload in ((8192, "81 20"), (8192, "80 80 01"), (100, "63")):
            _, link = self.opened(window=window)
            self.give(link, d.Data(False, 0, 0, None, None, octets(payload)))
            self.assertFalse(link.open)
            self.assertEqual(link.boot, DEVICE_BOOT + 1)

    def test_timer(self):
        _, link = self.opened(gateway_mtu=20)
        link.send(bytes(29))
        self.assertEqual(len(self.all_of(link, 0)), 3)
        self.assertEqual(link.wake_at(), 1000)
        (frame,) = self.all_of(link, 1000)
        self.assertEqual((self.parsed(frame).number, self.parsed(frame).offset), (3, 0))
        self.assertEqual(link.wake_at(), 3000)
        (frame,) = self.all_of(link, 3000)
        self.assertEqual((self.parsed(frame).number, self.parsed(frame).offset), (4, 10))
        self.give(link, d.Ack(False, 3, 0, 8192), 3100)  # 0 was given up, 2 is lost
        self.assertEqual(link.wake_at(), 3100 + 6300)  # a round trip of 2100
        (frame,) = self.all_of(link, 3100)
        self.assertEqual((self.parsed(frame).number, self.parsed(frame).offset), (5, 20))

    def test_round_trips(self):
        _, link = self.opened()
        now = 0
        for number, (trip, rto) in enumerate(((100, 300), (100, 250), (100, 212.5))):
            link.send(b"x")
            self.all_of(link, now)
            now += trip
            self.give(link, d.Ack(False, number, 0xFFFF, 8192), now)
            self.assertAlmostEqual(link.rto, rto)
        for number in range(3, 60):
            link.send(b"x")
            self.all_of(link, now)
            now += 10
            self.give(link, d.Ack(False, number, 0xFFFF, 8192), now)
        self.assertEqual(link.rto, 60)

    def test_silence(self):
        _, link = self.opened()
        link.send(b"x")
        now, sendings = 0, []
        while link.open:
            sendings += [now for frame in self.all_of(link, now) if isinstance(self.parsed(frame), d.Data)]
            now += 100
        self.assertEqual(sendings, [0, 1000, 3000, 7000, 15000, 23000])
        self.assertEqual(link.boot, DEVICE_BOOT + 1)
        self.assertEqual(now - 100, 30000)

    def test_probe(self):
        link = d.Link(d.DEVICE, DEVICE_BOOT)
        link.poll(0)
        for token in (1, 2):
            link.take(d.to_line(d.probe_body(d.GATEWAY, d.Probe(False, token, b"\0pad")))[:-1], 0)
        (frame,) = self.all_of(link, 0)
        self.assertEqual(self.parsed(frame), d.Probe(True, 2, b"\0pad"))
        link.take(d.to_line(d.probe_body(d.GATEWAY, d.Probe(True, 3, b"")))[:-1], 0)
        self.assertEqual(self.all_of(link, 0), [])


def serve(end, descriptor, done, garbage=b""):
    """Until `done` is true, or the line ends."""
    os.set_blocking(descriptor, False)
    out = bytearray(garbage) + b"\0"
    while not done():
        while not out and (frame := end.poll(d.now_ms())) is not None:
            out += frame
        readable, writable, _ = select.select([descriptor], [descriptor] if out else [], [], 0.02)
        try:
            if writable:  # a frame in several pieces
                del out[: os.write(descriptor, out[:7])]
            if readable:
                octets_of_line = os.read(descriptor, 4096)
                if not octets_of_line:
                    return
                end.receive(octets_of_line, d.now_ms())
        except OSError:
            return


PUSHES = {b"message1": b"hello", b"message2": "grüße".encode() * 300, b"message3": b"\xff\0\xfe"}


def toy_gateway(boot, pushes):
    now = d.now_ms()
    pushes = [Push(name, 3, body, at=now) for name, body in pushes.items()]
    return GatewayEnd(d.Link(d.GATEWAY, boot, 256, 256), "d1", pushes)


class ProgramTest(unittest.TestCase):
    """The program itself, over a pseudo-terminal and over sockets."""

    def start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, PROGRAM, "--id", "d1", "--timeout", "20", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def check_lines(self, lines, restarted=False):
        events = [json.loads(line) for line in lines]
        received = [event for event in events if event["event"] == "received"]
        self.assertEqual([event["message"] for event in received], [name.hex() for name in PUSHES])
        self.assertEqual([event["channel"] for event in received], [3, 3, 3])
        self.assertTrue(all(event["age"] >= 1 for event in received))
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
                gateway = toy_gateway(5, PUSHES)
                serve(gateway, descriptor, lambda: process.poll() is not None, garbage=b"\x03garbage" * 300)
            finally:
                os.close(descriptor)
            self.assertEqual(process.wait(), 0)
            self.assertEqual(gateway.lines, ["open", "attach traits 0"])
            self.assertEqual(gateway.pushes, {})
            self.check_lines(process.stdout.read().splitlines())
            self.assertFalse(os.path.lexists(path))

    def test_serial(self):
        near, far = os.openpty()
        self.addCleanup(os.close, near)
        self.addCleanup(os.close, far)
        process = self.start("--count", "3", "--serial", os.ttyname(far))
        serve(toy_gateway(5, PUSHES), near, lambda: process.poll() is not None)
        self.assertEqual(process.wait(), 0)
        self.check_lines(process.stdout.read().splitlines())

    def test_gateway_restarts(self):
        process = self.start("--count", "3")
        name = process.stdout.readline().split()[1]
        first = toy_gateway(5, dict(list(PUSHES.items())[:1]))
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        serve(first, descriptor, lambda: first.state == "attached" and not first.pushes and first.link.is_quiet())
        serve(first, descriptor, lambda end=d.now_ms() + 300: d.now_ms() > end)  # the ack has to arrive
        os.close(descriptor)
        self.assertIsNone(process.poll())
        second = toy_gateway(99, PUSHES)
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        serve(second, descriptor, lambda: process.poll() is not None)
        os.close(descriptor)
        self.assertEqual(process.wait(), 0)
        lines = process.stdout.read().splitlines()
        self.check_lines(lines, restarted=True)
        self.assertEqual(json.loads(lines[1])["event"], "duplicate")

    def test_device_restarts_and_keeps_ids(self):
        with tempfile.TemporaryDirectory() as folder:
            keep = os.path.join(folder, "ids")
            path = os.path.join(folder, "socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen()
                listener.settimeout(10)
                outputs = []
                for pushes, count in ((dict(list(PUSHES.items())[:1]), 1), (PUSHES, 2)):
                    process = self.start("--count", str(count), "--unix", path, "--keep", keep)
                    with listener.accept()[0] as connection:
                        gateway = toy_gateway(5, pushes)
                        serve(gateway, connection.fileno(), lambda: process.poll() is not None)
                    self.assertEqual(process.wait(), 0)
                    self.assertEqual(gateway.lines, ["open", "attach traits 1"])
                    outputs.append([json.loads(line)["event"] for line in process.stdout])
            self.assertEqual(outputs, [["received"], ["duplicate", "received", "received"]])

    def test_unix(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            process = self.start("--count", "3", "--unix", path)
            time.sleep(0.3)  # it has to wait for the socket
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                self.sockets(process, listener)

    def test_tcp(self):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            process = self.start("--count", "3", "--tcp", f"127.0.0.1:{listener.getsockname()[1]}")
            self.sockets(process, listener)

    def sockets(self, process, listener):
        listener.listen()
        listener.settimeout(10)
        with listener.accept()[0] as connection:
            connection.recv(3)  # and to connect anew
        with listener.accept()[0] as connection:
            serve(toy_gateway(5, PUSHES), connection.fileno(), lambda: process.poll() is not None)
        self.assertEqual(process.wait(), 0)
        self.check_lines(process.stdout.read().splitlines())

    def test_actions(self):
        actions = ("ask", "subscribe=7", "rotate=7", "rotate=8", "sleep=1", "unsubscribe=7")
        process = self.start("--count", "0", *(word for action in actions for word in ("--do", action)))
        name = process.stdout.readline().split()[1]
        gateway = toy_gateway(5, {})
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        serve(gateway, descriptor, lambda: process.poll() is not None)
        os.close(descriptor)
        self.assertEqual(process.wait(), 0)
        events = [json.loads(line) for line in process.stderr]
        done = [event["action"] for event in events if event["event"] == "done"]
        self.assertEqual(done, ["ask", "subscribe", "rotate", "rotate", "sleep", "unsubscribe"])
        kinds = [event["event"] for event in events if event["event"] != "done"]
        self.assertEqual(kinds[:2], ["open", "status"])
        first, second = (event for event in events if event["event"] == "subscribed")
        self.assertNotEqual(first["push"], second["push"])
        refused = next(event for event in events if event["event"] == "refused")
        self.assertEqual((refused["channel"], refused["reason"]), (8, "unknown channel"))
        self.assertEqual(gateway.lines, ["open", "attach traits 0", "sleep 1", "awake"])

    def test_refusing(self):
        process = self.start("--count", "1", "--refuse", "4=not possible")
        name = process.stdout.readline().split()[1]
        gateway = toy_gateway(5, {})
        for push in (Push(b"message4", 4, b"no"), Push(b"message3", 3, b"yes")):
            gateway.pushes[push.name] = push
        descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        serve(gateway, descriptor, lambda: process.poll() is not None)
        os.close(descriptor)
        self.assertEqual(gateway.refused, {b"message4": "not possible"})
        events = [json.loads(line) for line in process.stdout]
        self.assertEqual([(event["event"], event["channel"]) for event in events], [("not taken", 4), ("received", 3)])

    def test_timeout(self):
        process = subprocess.run(
            [sys.executable, PROGRAM, "--id", "d1", "--timeout", "0.3"],
            capture_output=True,
            text=True,
        )
        self.assertEqual(process.returncode, 1)

    def test_wrong_arguments(self):
        for words in (["--id", "a b"], ["--mtu", "19"], ["--window", "33"], ["--urgent", "31"], ["--do", "sleep"],
                      ["--do", "rotate=0"], ["--do", "dance"], ["--refuse", "1=no"], ["--unix", "a", "--tcp", "b:1"],
                      ["--window", "100", "--largest", "99"]):
            process = subprocess.run([sys.executable, PROGRAM, "--id", "d1", *words], capture_output=True, timeout=20)
            self.assertEqual(process.returncode, 2, words)


if __name__ == "__main__":
    unittest.main()
