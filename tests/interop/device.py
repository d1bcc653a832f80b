#!/usr/bin/env python3
"""A device for the link protocol, version 0, for trying a gateway from the other side of the line.

It was written from the specification of the link protocol alone and shares no code with any gateway. It needs nothing
but Python's standard library.

    device.py --id ID [--mtu N] [--boot N] [--count N] [--timeout SECONDS] [--symlink PATH] [--unix PATH]

Without --unix it opens a pseudo-terminal, prints `link /dev/pts/N` as its first line and is the device behind that
terminal. With --unix it connects to a Unix stream socket. It attaches as ID and prints one line of JSON for each push:

    {"event": "received", "message": "0123456789abcdef", "channel": 1, "text": "hello"}
    {"event": "duplicate", "message": "0123456789abcdef", "channel": 1, "text": "hello"}

with "hex" in place of "text" for a body that is not UTF-8. Everything else it has to tell goes to standard error.
It ends with 0 when --count different messages came and every acknowledgement is known to have arrived, and with 1
when --timeout seconds passed before that.

The layers, from the bottom: COBS and CRC-32C; frames; `Link`, the machine of a session, which does no input or output
and is told the time; messages; `Device`, the rules for a device; `Terminal` and `UnixLine`, the lines; `main`.
"""

import argparse
import collections
import json
import os
import random
import select
import signal
import socket
import sys
import termios
import time
import tty

VERSION = 0
MTU_MIN = 20
MTU_MAX = 1024
MESSAGE_MIN = 34
MESSAGE_MAX = 4096
HELLO_MS = 1000
WINDOW_START = 4
WINDOW_MAX = 16
WINDOW_OCTETS = 4096
RTO_START_MS = 1000
RTO_MIN_MS = 100
RTO_MIN_MS_PER_MTU_OCTET = 4
RTO_MAX_MS = 8000
SILENCE_MS = 30_000
SEEN_COUNT = 64  # the specification asks for 16 or more


# ---------------------------------------------------------------------------------------------------------------------
# Section 2: frames in the stream


class Damaged(ValueError):
    """A frame or a message that must be dropped."""


def cobs_encode(frame):
    """The frame without zero octets; the delimiter is not part of the result."""
    out = bytearray()
    block = bytearray()
    behind_full_block = False
    for octet in frame:
        behind_full_block = False
        if octet == 0:
            out.append(len(block) + 1)
            out += block
            block.clear()
            continue
        block.append(octet)
        if len(block) == 254:
            out.append(255)
            out += block
            block.clear()
            behind_full_block = True
    if not behind_full_block:  # else the `01` for the zero behind the frame may be left out
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def cobs_decode(encoded):
    """The frame that was encoded, or `Damaged`. `encoded` is without the delimiter."""
    out = bytearray()
    at = 0
    while at < len(encoded):
        code = encoded[at]
        if code == 0:
            raise Damaged("a zero octet within a frame")
        end = at + code
        if end > len(encoded):
            raise Damaged("octets missing")
        out += encoded[at + 1 : end]
        at = end
        if code != 255 and at < len(encoded):
            out.append(0)
    return bytes(out)


class Splitter:
    """Cuts a byte stream into encoded frames; drops the empty ones and those longer than the MTU."""

    def __init__(self, mtu):
        self.mtu = mtu
        self.reset()

    def reset(self):
        self.buffer = bytearray()
        self.too_long = False

    def feed(self, octets):
        frames = []
        for octet in octets:
            if octet == 0:
                if self.buffer and not self.too_long:
                    frames.append(bytes(self.buffer))
                self.reset()
            elif len(self.buffer) + 2 > self.mtu:  # with this octet and the delimiter
                self.too_long = True
            else:
                self.buffer.append(octet)
        return frames


# ---------------------------------------------------------------------------------------------------------------------
# Section 3: the checksum


def _crc_table():
    table = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)  # 1edc6f41 reflected
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc32c(octets):
    value = 0xFFFFFFFF
    for octet in octets:
        value = (value >> 8) ^ _CRC_TABLE[(value ^ octet) & 0xFF]
    return value ^ 0xFFFFFFFF


def u16(number):
    return number.to_bytes(2, "little")


def u32(number):
    return number.to_bytes(4, "little")


def session_seed(gateway_boot, device_boot):
    return u32(gateway_boot) + u32(device_boot)


# ---------------------------------------------------------------------------------------------------------------------
# Section 3: kinds of frames

KIND_HELLO = 0x10
KIND_DATA = 0x20
KIND_ACK = 0x30
FROM_DEVICE = 8
ASK = 1
FIRST = 1
LAST = 2
GAP = 1

HELLO_OCTETS = 18
DATA_OCTETS_MIN = 7
ACK_OCTETS = 6

Hello = collections.namedtuple("Hello", "ask version boot echo mtu largest")
Data = collections.namedtuple("Data", "first last seq ack payload")
Ack = collections.namedtuple("Ack", "gap ack")


def to_line(body, seed=b""):
    """A body as it goes on the line: checksum, encoding and delimiter."""
    return cobs_encode(body + u32(crc32c(seed + body))) + b"\0"


GATEWAY = "gateway"
DEVICE = "device"


def peer_of(role):
    return GATEWAY if role == DEVICE else DEVICE


def role_flag(role):
    return FROM_DEVICE if role == DEVICE else 0


def hello_body(role, hello):
    head = bytes([KIND_HELLO | role_flag(role) | (ASK if hello.ask else 0), hello.version])
    return head + u32(hello.boot) + u32(hello.echo) + u16(hello.mtu) + u16(hello.largest)


def data_body(role, data):
    flags = (FIRST if data.first else 0) | (LAST if data.last else 0)
    return bytes([KIND_DATA | role_flag(role) | flags, data.seq, data.ack]) + data.payload


def ack_body(role, ack):
    return bytes([KIND_ACK | role_flag(role) | (GAP if ack.gap else 0), ack.ack])


def parse_frame(frame, sender, seed):
    """A `Hello`, `Data` or `Ack` of the sender, or `Damaged`. `seed` is None while there is no session."""
    if len(frame) < 5:
        raise Damaged("too short")
    body, crc = frame[:-4], int.from_bytes(frame[-4:], "little")
    kind, flags = body[0] & 0xF0, body[0] & 0x0F
    if flags & FROM_DEVICE != role_flag(sender):
        raise Damaged("an echo")
    if kind == KIND_HELLO:
        if crc32c(body) != crc:
            raise Damaged("checksum")
        if len(body) < 2:
            raise Damaged("length")
        if body[1] != VERSION:
            return Hello(bool(flags & ASK), body[1], 0, 0, 0, 0)
        if len(frame) != HELLO_OCTETS:
            raise Damaged("length")
        number = lambda start, end: int.from_bytes(body[start:end], "little")
        return Hello(bool(flags & ASK), VERSION, number(2, 6), number(6, 10), number(10, 12), number(12, 14))
    if kind not in (KIND_DATA, KIND_ACK):
        raise Damaged("kind")
    if seed is None:
        raise Damaged("no session")
    if crc32c(seed + body) != crc:
        raise Damaged("checksum")
    if kind == KIND_DATA:
        if len(frame) < DATA_OCTETS_MIN:
            raise Damaged("length")
        return Data(bool(flags & FIRST), bool(flags & LAST), body[1], body[2], body[3:])
    if len(frame) != ACK_OCTETS:
        raise Damaged("length")
    return Ack(bool(flags & GAP), body[1])


def payload_max(mtu):
    """The largest payload whose DATA frame is never longer than the MTU, whatever its octets are."""
    octets = mtu - 2
    while octets + (octets + 253) // 254 + 1 > mtu:
        octets -= 1
    return octets - DATA_OCTETS_MIN


# ---------------------------------------------------------------------------------------------------------------------
# Sections 4 and 5: the machine of a session

def place(seq, expected):
    """Where `seq` stands to the expected number: 0 is it, 1 is ahead, -1 is old."""
    distance = (seq - expected) % 256
    if distance == 0:
        return 0
    return 1 if distance <= 127 else -1


class Flight:
    """A DATA frame that was sent and is not acknowledged."""

    def __init__(self, seq, first, last, payload, token):
        self.seq = seq
        self.first = first
        self.last = last
        self.payload = payload
        self.token = token
        self.measured = True
        self.sent_at = 0


class Link:
    """One side of a link. Give it what a `Splitter` cut with `take`, and get encoded frames from `poll`; time is in
    milliseconds.

    Both put what happened into `events`, in order. The events of a frame must be handled before the next is taken:
    ("open",)  ("closed", why)  ("message", octets)  ("delivered", token)  ("version", number)
    """

    def __init__(self, role, boot, mtu=256, largest=MESSAGE_MAX):
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise ValueError("the MTU is from 20 to 1024")
        if not 1 <= boot <= 0xFFFFFFFF:
            raise ValueError("a boot id is from 1 to 4294967295")
        if not MESSAGE_MIN <= largest <= MESSAGE_MAX:
            raise ValueError("the largest message is from 34 to 4096")
        self.role = role
        self.boot = boot
        self.mtu = mtu
        self.largest = largest
        self.events = collections.deque()
        self.hello_owed = False
        self._become_closed()

    # Section 4

    def _become_closed(self):
        self.open = False
        self.peer_boot = 0
        self.peer_mtu = 0
        self.peer_largest = 0
        self.hello_at = None  # at once
        self._clear_session()

    def _clear_session(self):
        self.seed = None
        self.session_mtu = 0
        # What is sent
        self.queue = collections.deque()  # (message, token)
        self.cut_at = 0  # how much of the first of the queue was cut off
        self.next_seq = 0
        self.flights = collections.deque()
        self.resent = 0  # so many of the flights, from the oldest, need not be sent now
        self.gap_answered = False
        self.window = WINDOW_START
        self.timer_at = None
        self.silent_at = 0
        self.rto = RTO_START_MS
        self.rto_min = RTO_MIN_MS
        self.srtt = None
        self.rttvar = None
        # What is received
        self.expected = 0
        self.ack_owed = False
        self.gap_owed = False
        self.partial = None  # a message half received

    def _leave(self, why):
        self.boot = self.boot % 0xFFFFFFFF + 1
        self._become_closed()
        self.events.append(("closed", why))

    def _take_hello(self, hello):
        if hello.version != VERSION:
            self.events.append(("version", hello.version))
            return
        if hello.boot == 0 or hello.mtu < MTU_MIN or hello.largest < MESSAGE_MIN:
            return  # values that no sender may send
        if hello.ask:
            self.hello_owed = True
        if self.open and hello.boot != self.peer_boot:
            self._leave("the peer has another boot id")
        if not self.open:
            self.peer_boot = hello.boot
            self.peer_mtu = hello.mtu
            self.peer_largest = hello.largest
            if hello.echo == self.boot:
                self._become_open()

    def _become_open(self):
        self._clear_session()
        self.open = True
        if self.role == GATEWAY:
            self.seed = session_seed(self.boot, self.peer_boot)
        else:
            self.seed = session_seed(self.peer_boot, self.boot)
        self.session_mtu = min(self.mtu, self.peer_mtu)
        self.rto_min = max(RTO_MIN_MS, RTO_MIN_MS_PER_MTU_OCTET * self.session_mtu)
        self.rto = max(RTO_START_MS, self.rto_min)
        self.events.append(("open",))

    def _hello(self, now):
        self.hello_owed = False
        self.hello_at = now + HELLO_MS
        hello = Hello(not self.open, VERSION, self.boot, self.peer_boot, self.mtu, self.largest)
        return to_line(hello_body(self.role, hello))

    # Section 5

    def send(self, message, token=None):
        """Queue a message for this session. False: there is no session, or the peer does not accept it."""
        if not self.open or len(message) > min(self.peer_largest, MESSAGE_MAX):
            return False
        self.queue.append((bytes(message), token))
        return True

    def take(self, encoded, now):
        try:
            frame = parse_frame(cobs_decode(encoded), peer_of(self.role), self.seed)
        except Damaged:
            return
        if isinstance(frame, Hello):
            self._take_hello(frame)
        elif isinstance(frame, Data):
            self._take_ack(frame.ack, False, now)
            self._take_data(frame)
        else:
            self._take_ack(frame.ack, frame.gap, now)

    def _take_data(self, data):
        self.ack_owed = True
        where = place(data.seq, self.expected)
        self.gap_owed = where > 0
        if where != 0:
            return
        self.expected = (self.expected + 1) % 256
        if data.first:
            self.partial = bytearray()
        if self.partial is None:
            return
        self.partial += data.payload
        if len(self.partial) > self.largest:
            self.partial = None
        elif data.last:
            self.events.append(("message", bytes(self.partial)))
            self.partial = None

    def _take_ack(self, ack, gap, now):
        oldest = self.flights[0].seq if self.flights else self.next_seq
        arrived = (ack - oldest) % 256
        if arrived > len(self.flights):
            return
        if arrived:
            self._take_arrived(arrived, now)
        if gap and self.flights and not self.gap_answered:
            self.gap_answered = True
            self._send_again()
            self.timer_at = now + self.rto

    def _send_again(self):
        self.resent = 0
        for flight in self.flights:
            flight.measured = False

    def _take_arrived(self, arrived, now):
        sample = None
        for _ in range(arrived):
            flight = self.flights.popleft()
            if flight.measured:
                sample = now - flight.sent_at
            if flight.last:
                self.events.append(("delivered", flight.token))
        if sample is not None:
            self._measure(sample)
        self.resent = max(0, self.resent - arrived)
        self.window = min(WINDOW_MAX, WINDOW_OCTETS // self.session_mtu, self.window + arrived)
        self.gap_answered = False
        self.timer_at = None
        if self.flights:
            self._wait(now)

    def _wait(self, now):
        self.timer_at = now + self.rto
        self.silent_at = now + SILENCE_MS

    def _measure(self, sample):
        if self.srtt is None:
            self.srtt = sample
            self.rttvar = sample / 2
        else:
            self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.srtt - sample)
            self.srtt = 0.875 * self.srtt + 0.125 * sample
        self.rto = min(RTO_MAX_MS, max(self.rto_min, self.srtt + max(1, 4 * self.rttvar)))

    def _timer(self, now):
        if self.timer_at is None or now < min(self.timer_at, self.silent_at):
            return
        if now >= self.silent_at:
            self._leave("the peer is silent")
            return
        self.window = 1
        self._send_again()
        self.rto = min(RTO_MAX_MS, self.rto * 2)
        self.timer_at = now + self.rto

    def poll(self, now):
        """The next encoded frame with its delimiter, or None. Call it when the line is free, until it is None."""
        self._timer(now)
        if self.hello_owed or (not self.open and (self.hello_at is None or now >= self.hello_at)):
            return self._hello(now)
        if not self.open:
            return None
        if self.gap_owed:  # cannot ride on DATA
            return self._ack()
        flight = self._next_flight()
        if flight is not None:
            return self._send_flight(flight, now)
        if self.ack_owed:
            return self._ack()
        return None

    def _ack(self):
        body = ack_body(self.role, Ack(self.gap_owed, self.expected))
        self.ack_owed = False
        self.gap_owed = False
        return to_line(body, self.seed)

    def _next_flight(self):
        if self.resent < len(self.flights):
            if self.resent < self.window:
                return self.flights[self.resent]
            return None
        if not self.queue or len(self.flights) >= self.window:
            return None
        message, token = self.queue[0]
        size = payload_max(self.session_mtu)
        payload = message[self.cut_at : self.cut_at + size]
        first = self.cut_at == 0
        self.cut_at += len(payload)
        last = self.cut_at == len(message)
        if last:
            self.queue.popleft()
            self.cut_at = 0
        flight = Flight(self.next_seq, first, last, payload, token)
        self.next_seq = (self.next_seq + 1) % 256
        self.flights.append(flight)
        return flight

    def _send_flight(self, flight, now):
        self.resent += 1
        flight.sent_at = now
        if self.timer_at is None:
            self._wait(now)
        self.ack_owed = False
        body = data_body(self.role, Data(flight.first, flight.last, flight.seq, self.expected, flight.payload))
        return to_line(body, self.seed)

    def wake_at(self):
        """When `poll` must be called again though nothing arrived; None is never, 0 is at once."""
        if self.open:
            return None if self.timer_at is None else min(self.timer_at, self.silent_at)
        return 0 if self.hello_at is None else self.hello_at


# ---------------------------------------------------------------------------------------------------------------------
# Section 6: messages

ATTACH, ACK, REFUSE, SUBSCRIBE, UNSUBSCRIBE = range(5)
PUSH, SUBSCRIBED, REFUSED, UNSUBSCRIBED = range(4)
REASONS = ("full", "unknown device", "unknown channel", "not possible")
CHANNEL_MAX = 65535


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def octets_field(octets):
    return varint(len(octets)) + octets


class Reader:
    """Takes the fields of a message one after the other."""

    def __init__(self, message):
        self.message = bytes(message)
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.message):
            raise Damaged("octets missing")
        self.at += count
        return self.message[self.at - count : self.at]

    def octet(self):
        return self.take(1)[0]

    def varint(self):
        number = 0
        for shift in range(0, 35, 7):
            octet = self.octet()
            number |= (octet & 0x7F) << shift
            if octet < 0x80:
                return number
        raise Damaged("a varint of more than 5 octets")

    def channel(self, least=1):
        channel = self.varint()
        if not least <= channel <= CHANNEL_MAX:
            raise Damaged("channel")
        return channel

    def octets(self):
        return self.take(self.varint())

    def text(self):
        try:
            return self.octets().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damaged("not UTF-8") from error

    def reason(self):
        reason = self.octet()
        if reason >= len(REASONS):
            raise Damaged("reason")
        return REASONS[reason]

    def end(self):
        if self.at != len(self.message):
            raise Damaged("octets left over")


def attach_message(device):
    return bytes([ATTACH]) + octets_field(device.encode("ascii"))


def ack_message(message):
    return bytes([ACK]) + message


def refuse_message(message, reason):
    return bytes([REFUSE]) + message + bytes([REASONS.index(reason)])


def subscribe_message(channel):
    return bytes([SUBSCRIBE]) + varint(channel)


def unsubscribe_message(channel):
    return bytes([UNSUBSCRIBE]) + varint(channel)


def parse_to_device(message):
    """A dictionary with "tag" and the fields of a message to the device, or `Damaged`."""
    reader = Reader(message)
    tag = reader.octet()
    if tag == PUSH:
        fields = {"message": reader.take(8), "channel": reader.channel(), "body": reader.octets()}
    elif tag == SUBSCRIBED:
        fields = {"channel": reader.channel(), "push": reader.text(), "p256dh": reader.octets(), "auth": reader.octets()}
        if len(fields["p256dh"]) != 65 or len(fields["auth"]) != 16:
            raise Damaged("length of a key")
    elif tag == REFUSED:
        fields = {"channel": reader.channel(least=0), "reason": reader.reason()}
    elif tag == UNSUBSCRIBED:
        fields = {"channel": reader.channel()}
    else:
        raise Damaged("unknown tag")
    reader.end()
    return {"tag": tag, **fields}


ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def is_device_id(text):
    return 1 <= len(text) <= 32 and ID_CHARACTERS.issuperset(text)


class Device:
    """The rules for a device: attaches in each session, prints and acknowledges what it is pushed.

    An acknowledgement is unconfirmed until its DATA frame was acknowledged. One that is unconfirmed when its session
    ends is sent again in the next session, behind Attach.
    """

    def __init__(self, link, device, report, log):
        self.link = link
        self.splitter = Splitter(link.mtu)
        self.device = device
        self.report = report
        self.log = log
        self.received = 0
        self.seen = collections.OrderedDict()
        self.unconfirmed = collections.OrderedDict()

    def receive(self, octets, now):
        for encoded in self.splitter.feed(octets):
            self.link.take(encoded, now)
            self._run_events()

    def poll(self, now):
        frame = self.link.poll(now)
        self._run_events()
        return frame

    def _run_events(self):
        while self.link.events:
            event = self.link.events.popleft()
            if event[0] == "open":
                self._opened()
            elif event[0] == "message":
                self._message(event[1])
            elif event[0] == "delivered":
                self.unconfirmed.pop(event[1], None)
            else:
                self.log({"event": event[0], "what": event[1]})

    def _opened(self):
        self.log({"event": "open", "mtu": self.link.session_mtu})
        if not self.link.send(attach_message(self.device)):
            self.log({"event": "error", "what": "the gateway accepts no message as long as Attach"})
        for message in self.unconfirmed:
            self.link.send(ack_message(message), message)

    def _message(self, octets):
        try:
            fields = parse_to_device(octets)
        except Damaged as error:
            self.log({"event": "invalid", "what": str(error), "hex": octets.hex()})
            return
        if fields["tag"] == PUSH:
            self._push(fields["message"], fields["channel"], fields["body"])
        elif fields["tag"] == REFUSED:
            self.log({"event": "refused", "channel": fields["channel"], "reason": fields["reason"]})
        elif fields["tag"] == SUBSCRIBED:
            self.log({"event": "subscribed", "channel": fields["channel"], "push": fields["push"]})
        else:
            self.log({"event": "unsubscribed", "channel": fields["channel"]})

    def _push(self, message, channel, body):
        copy = message in self.seen
        self.seen[message] = True
        self.seen.move_to_end(message)
        while len(self.seen) > SEEN_COUNT:
            self.seen.popitem(last=False)
        if not copy:
            self.received += 1
        line = {"event": "duplicate" if copy else "received", "message": message.hex(), "channel": channel}
        try:
            line["text"] = body.decode("utf-8")
        except UnicodeDecodeError:
            line["hex"] = body.hex()
        self.report(line)
        self.unconfirmed[message] = True
        self.link.send(ack_message(message), message)

    def is_done(self, count):
        return self.received >= count and not self.unconfirmed


# ---------------------------------------------------------------------------------------------------------------------
# The lines


class Terminal:
    """The near end of a pseudo-terminal; the far end is raw, and stays open so that a gateway may come and go."""

    def __init__(self):
        self.near, self.far = os.openpty()
        tty.setraw(self.far, termios.TCSANOW)
        os.set_blocking(self.near, False)
        self.name = os.ttyname(self.far)
        self.out = bytearray(b"\0")
        self.fresh = False

    def fileno(self):
        return self.near

    def connect(self):
        return True

    def read(self):
        try:
            return os.read(self.near, 4096)
        except (BlockingIOError, InterruptedError):
            return b""

    def write(self):
        try:
            del self.out[: os.write(self.near, self.out)]
        except (BlockingIOError, InterruptedError):
            pass


class UnixLine:
    """A Unix stream socket; connects again, whenever the gateway is not there."""

    def __init__(self, path):
        self.path = path
        self.socket = None
        self.out = bytearray()
        self.fresh = False  # connected anew: what was half received is lost

    def fileno(self):
        return self.socket.fileno()

    def connect(self):
        if self.socket is not None:
            return True
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            attempt.connect(self.path)
        except OSError:
            attempt.close()
            return False
        attempt.setblocking(False)
        self.socket = attempt
        self.out = bytearray(b"\0")
        self.fresh = True
        return True

    def _lost(self):
        self.socket.close()
        self.socket = None
        self.out.clear()

    def read(self):
        if self.socket is None:
            return b""
        try:
            octets = self.socket.recv(4096)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            octets = b""
        if not octets:
            self._lost()
        return octets

    def write(self):
        try:
            del self.out[: self.socket.send(self.out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lost()


CONNECT_AGAIN_S = 0.1


def now_ms():
    return time.monotonic() * 1000


def run(line, device, count, timeout_s):
    """Serve the line until the device is done (True) or the time is over (False)."""
    link = device.link
    end = now_ms() + timeout_s * 1000
    while True:
        if now_ms() >= end:
            return False
        if not line.connect():
            time.sleep(CONNECT_AGAIN_S)
            continue
        if line.fresh:
            line.fresh = False
            device.splitter.reset()
        if not line.out:  # the line is free
            frame = device.poll(now_ms())
            if frame is not None:
                line.out += frame
            elif device.is_done(count):
                return True
        wake = end
        if not line.out and link.wake_at() is not None:
            wake = min(wake, link.wake_at())
        wait_s = max(0, wake - now_ms()) / 1000
        readable, writable, _ = select.select([line], [line] if line.out else [], [], wait_s)
        if writable:
            line.write()
        if readable:
            device.receive(line.read(), now_ms())


def print_line(fields):
    print(json.dumps(fields), flush=True)


def print_log(fields):
    print(json.dumps(fields), file=sys.stderr, flush=True)


def set_symlink(target, path):
    """Make `path` a symbolic link to `target`; an older link is replaced in one step."""
    if os.path.lexists(path) and not os.path.islink(path):
        raise SystemExit(f"{path} exists and is not a symbolic link")
    temporary = f"{path}.{os.getpid()}"
    os.symlink(target, temporary)
    os.replace(temporary, path)


def remove_symlink(target, path):
    try:
        if os.readlink(path) == target:
            os.unlink(path)
    except OSError:
        pass


def arguments(argv):
    number = lambda text: int(text, 0)
    parser = argparse.ArgumentParser(description="A device for the link protocol.")
    parser.add_argument("--id", required=True, help="the device's name: 1 to 32 of A-Z a-z 0-9 . _ -")
    parser.add_argument("--mtu", type=number, default=256, help="octets of the largest frame, 20 to 1024 (256)")
    parser.add_argument("--boot", type=number, help="the first boot id, such as 0x55667788 (random)")
    parser.add_argument("--count", type=number, default=1, help="end when so many messages came (1)")
    parser.add_argument("--timeout", type=float, default=60, help="give up after so many seconds (60)")
    parser.add_argument("--symlink", metavar="PATH", help="keep a symbolic link to the terminal here")
    parser.add_argument("--unix", metavar="PATH", help="connect to this Unix stream socket instead")
    options = parser.parse_args(argv)
    if not is_device_id(options.id):
        parser.error("--id is 1 to 32 of A-Z a-z 0-9 . _ -")
    if not MTU_MIN <= options.mtu <= MTU_MAX:
        parser.error("--mtu is from 20 to 1024")
    if options.boot is None:
        options.boot = random.SystemRandom().randint(1, 0xFFFFFFFF)
    if not 1 <= options.boot <= 0xFFFFFFFF:
        parser.error("--boot is from 1 to 4294967295")
    if options.unix and options.symlink:
        parser.error("--symlink is for a terminal, not for --unix")
    return options


def main(argv=None):
    options = arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    link = Link(DEVICE, options.boot, options.mtu)
    device = Device(link, options.id, print_line, print_log)
    if options.unix:
        return 0 if run(UnixLine(options.unix), device, options.count, options.timeout) else 1
    line = Terminal()
    try:
        if options.symlink:
            set_symlink(line.name, options.symlink)
        print(f"link {line.name}", flush=True)
        return 0 if run(line, device, options.count, options.timeout) else 1
    finally:
        if options.symlink:
            remove_symlink(line.name, options.symlink)


if __name__ == "__main__":
    sys.exit(main())
