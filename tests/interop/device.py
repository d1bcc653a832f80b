#!/usr/bin/env python3
"""A device for the link protocol, version 1, for trying a gateway from the other side of the line.

It was written from the specification of the link protocol alone and shares no code with any gateway. It needs nothing
but Python's standard library.

    device.py --id ID [--unix PATH | --tcp HOST:PORT | --serial PATH [--baud N]] [--symlink PATH] [--mtu N] [--boot N]
              [--window N] [--urgent N] [--largest N] [--memory N] [--keep PATH] [--refuse CHANNEL=REASON]...
              [--do ACTION]... [--count N] [--timeout SECONDS]

Without a line it opens a pseudo-terminal, prints `link /dev/pts/N` as its first line and is the device behind that
terminal. With --unix or --tcp it connects to a stream socket, with --serial it opens a port. It attaches as ID and prints
one line of JSON for each push:

    {"event": "received", "message": "0123456789abcdef", "channel": 1, "age": 3, "urgent": false, "text": "hello"}
    {"event": "duplicate", "message": "0123456789abcdef", "channel": 1, "age": 5, "urgent": false, "text": "hello"}

with "hex" in place of "text" for a body that is not UTF-8. Everything else it has to tell goes to standard error, one line
of JSON each: open, closed, status, subscribed, unsubscribed, refused, asleep, awake, done (an action) and others.

Actions are done in their order, each when the one before was answered: `ask`, `subscribe=CHANNEL`, `unsubscribe=CHANNEL`,
`rotate=CHANNEL` and `sleep=SECONDS`, which is answered when nothing waits any more after it.

It ends with 0 when --count different messages came, all actions are done and every acknowledgement is known to have
arrived, and with 1 when --timeout seconds passed before that.

The layers, from the bottom: COBS and CRC-32C; frames; streams; `Link`, the machine of a session, which does no input or
output and is told the time; messages; `Device`, the rules for a device; the lines; `main`.
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

VERSION = 1
MTU_MIN = 20
MTU_MAX = 1024
WINDOW_MIN = 32
WINDOW_MAX = 32767
MESSAGE_MIN = 32
MESSAGE_MAX = 4096
LENGTH_OCTETS = 2  # of the largest message
HELLO_MS = 1000
FLIGHT_NUMBERS = 16
RTO_START_MS = 1000
RTO_MIN_MS = 60
RTO_MAX_MS = 8000
VARIATIONS_MIN_MS = 20
CREDIT_MS = 2000
SILENCE_MS = 30_000
MEMORY = 64  # the specification asks for 16 or more
START_ANEW_MS = 60_000


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


def frame_max(mtu):
    """The largest frame that is never longer than the MTU on the line, whatever its octets are."""
    octets = mtu - 2
    while octets + (octets + 253) // 254 + 1 > mtu:
        octets -= 1
    return octets


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


def number_at(octets, start, count):
    return int.from_bytes(octets[start : start + count], "little")


def session_seed(gateway_boot, device_boot):
    return u32(gateway_boot) + u32(device_boot)


# ---------------------------------------------------------------------------------------------------------------------
# Section 3: kinds of frames

KIND_HELLO = 0x10
KIND_DATA = 0x20
KIND_ACK = 0x30
KIND_PROBE = 0x40
FROM_DEVICE = 8
ASK = 1  # in HELLO
URGENT = 1  # in DATA and ACK
WITH_ACK = 2
WITH_LIMIT = 4
ANSWER = 1  # in PROBE

CRC_OCTETS = 4
HELLO_OCTETS = 18
DATA_OCTETS_MIN = 8
ACK_OCTETS = 10
PROBE_OCTETS_MIN = 6
ACK_FIELDS_OCTETS = 3
LIMIT_FIELD_OCTETS = 2

Hello = collections.namedtuple("Hello", "ask version boot echo mtu window")
Data = collections.namedtuple("Data", "urgent number offset ack limit payload")  # ack: (newest, before) or None
Ack = collections.namedtuple("Ack", "urgent newest before limit")
Probe = collections.namedtuple("Probe", "answer token padding")

GATEWAY = "gateway"
DEVICE = "device"


def peer_of(role):
    return GATEWAY if role == DEVICE else DEVICE


def role_flag(role):
    return FROM_DEVICE if role == DEVICE else 0


def to_line(body, seed=b""):
    """A body as it goes on the line: checksum, encoding and delimiter."""
    return cobs_encode(body + u32(crc32c(seed + body))) + b"\0"


def hello_body(role, hello):
    head = bytes([KIND_HELLO | role_flag(role) | (ASK if hello.ask else 0), hello.version])
    return head + u32(hello.boot) + u32(hello.echo) + u16(hello.mtu) + u16(hello.window)


def data_body(role, data):
    kind = KIND_DATA | role_flag(role) | (URGENT if data.urgent else 0)
    fields = b""
    if data.ack is not None:
        kind |= WITH_ACK
        fields += bytes([data.ack[0]]) + u16(data.ack[1])
    if data.limit is not None:
        kind |= WITH_LIMIT
        fields += u16(data.limit)
    return bytes([kind, data.number]) + u16(data.offset) + fields + data.payload


def ack_body(role, ack):
    kind = KIND_ACK | role_flag(role) | (URGENT if ack.urgent else 0)
    return bytes([kind, ack.newest]) + u16(ack.before) + u16(ack.limit)


def probe_body(role, probe):
    return bytes([KIND_PROBE | role_flag(role) | (ANSWER if probe.answer else 0), probe.token]) + probe.padding


def parse_frame(frame, sender, seed):
    """A frame of the sender, or `Damaged`. `seed` is None while there is no session."""
    if len(frame) < 1 + CRC_OCTETS:
        raise Damaged("too short")
    body, crc = frame[:-CRC_OCTETS], number_at(frame, len(frame) - CRC_OCTETS, CRC_OCTETS)
    kind, flags = body[0] & 0xF0, body[0] & 0x0F
    if flags & FROM_DEVICE != role_flag(sender):
        raise Damaged("an echo")
    if kind == KIND_HELLO:
        return _parse_hello(body, crc, bool(flags & ASK))
    if kind == KIND_PROBE:
        if crc32c(body) != crc:
            raise Damaged("checksum")
        if len(frame) < PROBE_OCTETS_MIN:
            raise Damaged("length")
        return Probe(bool(flags & ANSWER), body[1], body[2:])
    if kind not in (KIND_DATA, KIND_ACK):
        raise Damaged("kind")
    if seed is None:
        raise Damaged("no session")
    if crc32c(seed + body) != crc:
        raise Damaged("checksum")
    if kind == KIND_ACK:
        if len(frame) != ACK_OCTETS:
            raise Damaged("length")
        return Ack(bool(flags & URGENT), body[1], number_at(body, 2, 2), number_at(body, 4, 2))
    at = 4
    ack = limit = None
    if flags & WITH_ACK:
        ack = (body[at] if at < len(body) else 0, number_at(body, at + 1, 2))
        at += ACK_FIELDS_OCTETS
    if flags & WITH_LIMIT:
        limit = number_at(body, at, 2)
        at += LIMIT_FIELD_OCTETS
    if len(body) < at:
        raise Damaged("length")
    return Data(bool(flags & URGENT), body[1], number_at(body, 2, 2), ack, limit, body[at:])


def _parse_hello(body, crc, ask):
    if crc32c(body) != crc:
        raise Damaged("checksum")
    if len(body) < 2:
        raise Damaged("length")
    if body[1] != VERSION:
        return Hello(ask, body[1], 0, 0, 0, 0)
    if len(body) != HELLO_OCTETS - CRC_OCTETS:
        raise Damaged("length")
    boot, echo, mtu, window = (number_at(body, at, n) for at, n in ((2, 4), (6, 4), (10, 2), (12, 2)))
    if boot == 0 or mtu < MTU_MIN or window < WINDOW_MIN:
        raise Damaged("values that no side may send")
    return Hello(ask, VERSION, boot, echo, min(mtu, MTU_MAX), min(window, WINDOW_MAX))


# ---------------------------------------------------------------------------------------------------------------------
# Section 5: streams. Offsets are counted without end here, and modulo 65536 on the line.


class BrokenRule(Exception):
    """The peer did what ends the session."""


def near(offset, known):
    """The offset without end that is nearest to a known one, of an offset on the line."""
    ahead = (offset - known) % 65536
    return known + ahead - (65536 if ahead >= 32768 else 0)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Outgoing:
    """What is sent in a stream, from the first octet that is not known to have arrived."""

    def __init__(self, limit):
        self.limit = limit
        self.octets = bytearray()
        self.base = 0  # offset of the first of `octets`
        self.next = 0  # offset of the first that was never sent
        self.lost = []  # what is to be sent again: pairs of offsets, in order
        self.marks = collections.deque()  # (where a message ends, its token)

    def end(self):
        return self.base + len(self.octets)

    def add(self, message, token):
        self.octets += varint(len(message)) + message
        self.marks.append((self.end(), token))

    def is_due(self):
        return bool(self.lost) or self.next < min(self.end(), self.limit)

    def is_blocked(self):
        return not self.lost and self.limit <= self.next < self.end()

    def cut(self, room):
        """The next piece of at most so many octets: where it starts and ends."""
        if self.lost:
            start, end = self.lost[0]
            if end - start > room:
                end = start + room
                self.lost[0] = (end, self.lost[0][1])
            else:
                del self.lost[0]
            return start, end
        start = self.next
        self.next = min(self.end(), self.limit, start + room)
        return start, self.next

    def piece(self, start, end):
        return bytes(self.octets[start - self.base : end - self.base])

    def lose(self, start, end):
        if start == end:
            return
        merged = []
        for piece in sorted([*self.lost, (start, end)]):
            if merged and merged[-1][1] == piece[0]:
                merged[-1] = (merged[-1][0], piece[1])
            else:
                merged.append(piece)
        self.lost = merged

    def release(self, base):
        """Everything before `base` has arrived: the tokens of the messages that ended there."""
        del self.octets[: base - self.base]
        self.base = base
        tokens = []
        while self.marks and self.marks[0][0] <= base:
            tokens.append(self.marks.popleft()[1])
        return [token for token in tokens if token is not None]


class Incoming:
    """What is received in a stream, from the first octet that is not part of a whole message."""

    def __init__(self, window):
        self.window = window
        self.octets = bytearray()
        self.have = bytearray()  # 1 for each of `octets` that is there
        self.base = 0  # offset of the first of `octets`
        self.expected = 0  # offset of the first that is missing
        self.taken = 0  # offset of the first whose room is not free
        self.told = window  # the limit that the peer was told

    def limit(self):
        return self.taken + self.window

    def take(self, offset, payload):
        """False: the frame is to be dropped."""
        start = near(offset, self.expected)
        end = start + len(payload)
        if payload and end > self.told:
            return False
        if end > self.expected:
            payload = payload[max(0, self.expected - start) :]
            at = end - len(payload) - self.base
            missing = at + len(payload) - len(self.octets)
            if missing > 0:
                self.octets += bytes(missing)
                self.have += bytes(missing)
            self.octets[at : at + len(payload)] = payload
            self.have[at : at + len(payload)] = b"\1" * len(payload)
            gap = self.have.find(0, self.expected - self.base)
            self.expected = self.base + (len(self.have) if gap < 0 else gap)
        return True

    def message(self):
        """The next message and the octets of room that it holds, or None."""
        length = 0
        there = self.expected - self.base
        for at in range(LENGTH_OCTETS + 1):
            if at == LENGTH_OCTETS:
                raise BrokenRule("a length of more than two octets")
            if at == there:
                return None
            length |= (self.octets[at] & 0x7F) << 7 * at
            if self.octets[at] < 0x80:
                break
        if length > MESSAGE_MAX or length > self.window - LENGTH_OCTETS:
            raise BrokenRule(f"a message of {length} octets")
        end = at + 1 + length
        if end > there:
            return None
        message = bytes(self.octets[at + 1 : end])
        del self.octets[:end]
        del self.have[:end]
        self.base += end
        return message, end

    def is_scarce(self):
        """Less than half of the window is left to the peer."""
        return 2 * (self.told - self.expected) < self.window

    def has_risen(self):
        return self.window > 0 and 2 * (self.limit() - self.told) >= self.window


# ---------------------------------------------------------------------------------------------------------------------
# Sections 4 and 5: the machine of a session


class Flight:
    """A DATA frame in flight."""

    def __init__(self, number, urgent, start, end):
        self.number = number
        self.urgent = urgent
        self.start = start
        self.end = end


class Link:
    """One side of a link. Give it what a `Splitter` cut with `take`, and get encoded frames from `poll`; time is in
    milliseconds.

    Both make events. The events of a frame must be handled before the next is taken:
    ("open",)  ("closed", why)  ("message", octets, urgent)  ("delivered", token)  ("version", number)
    ("answer", token, padding)
    The room of a message is free once `next_event` has returned it.
    """

    def __init__(self, role, boot, mtu=256, window=8192, urgent_window=0):
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise ValueError("the MTU is from 20 to 1024")
        if not 1 <= boot <= 0xFFFFFFFF:
            raise ValueError("a boot id is from 1 to 4294967295")
        if not WINDOW_MIN <= window <= WINDOW_MAX:
            raise ValueError("the window is from 32 to 32767")
        if not (urgent_window == 0 or WINDOW_MIN <= urgent_window <= WINDOW_MAX):
            raise ValueError("the window of the urgent stream is 0, or from 32 to 32767")
        self.role = role
        self.boot = boot
        self.mtu = mtu
        self.window = window
        self.urgent_window = urgent_window
        self.events = collections.deque()
        self.hello_owed = False
        self.answer = None  # the PROBE that is to be answered
        self._become_closed()

    # Section 4

    def _become_closed(self):
        self.open = False
        self.peer_boot = 0
        self.peer_mtu = MTU_MAX
        self.peer_window = 0
        self.hello_at = None  # at once
        self._clear_session()

    def _clear_session(self):
        self.seed = None
        # What is sent
        self.peer_urgent_window = 0
        self.outgoing = {True: Outgoing(0), False: Outgoing(self.peer_window)}  # by whether it is urgent
        self.next_number = 0
        self.flights = collections.deque()
        self.budget = None  # so many DATA frames may be sent until something arrives; None: any number
        self.rto = RTO_START_MS
        self.srtt = None
        self.rttvar = None
        self.measured = None  # (number, when it was sent)
        self.timer_at = None
        self.silent_since = None
        self.credit_at = None
        self.credit_urgent = False  # which stream asked last
        # What is received
        self.incoming = {True: Incoming(self.urgent_window), False: Incoming(self.window)}
        self.newest = None
        self.before = 0
        self.ack_owed = False
        self.limit_owed = {True: False, False: False}

    def leave(self, why):
        """Become CLOSED and begin anew."""
        self.boot = self.boot % 0xFFFFFFFF + 1
        self._become_closed()
        self.events.append(("closed", why))

    def _take_hello(self, hello):
        if hello.version != VERSION:
            self.events.append(("version", hello.version))
            return
        if hello.ask:
            self.hello_owed = True
        if self.open and hello.boot != self.peer_boot:
            self.leave("the peer has another boot id")
        if not self.open:
            self.peer_boot = hello.boot
            self.peer_mtu = hello.mtu
            self.peer_window = hello.window
            if hello.echo == self.boot:
                self._become_open()

    def _become_open(self):
        self._clear_session()
        self.open = True
        if self.role == GATEWAY:
            self.seed = session_seed(self.boot, self.peer_boot)
        else:
            self.seed = session_seed(self.peer_boot, self.boot)
        self.events.append(("open",))

    def _hello(self, now):
        self.hello_owed = False
        self.hello_at = now + HELLO_MS
        hello = Hello(not self.open, VERSION, self.boot, self.peer_boot, self.mtu, self.window)
        return to_line(hello_body(self.role, hello))

    # Section 5: what the application does

    def send(self, message, token=None, urgent=False):
        """Queue a message for this session. False: there is no session, or the peer does not accept it."""
        room = self.peer_urgent_window if urgent else self.peer_window
        if not self.open or len(message) > min(room - LENGTH_OCTETS, MESSAGE_MAX):
            return False
        self.outgoing[urgent].add(bytes(message), token)
        return True

    def allow_urgent(self, window):
        """The peer has an urgent stream with this window."""
        self.peer_urgent_window = min(window, WINDOW_MAX)
        self.outgoing[True].limit = self.peer_urgent_window

    def next_event(self):
        if not self.events:
            return None
        event = self.events.popleft()
        if event[0] != "message":
            return event
        _, message, urgent, room, session = event
        stream = self.incoming[urgent]
        if session == self.seed:
            stream.taken += room
            if stream.has_risen():
                self.ack_owed = True
                self.limit_owed[urgent] = True
        return ("message", message, urgent)

    def is_quiet(self):
        """Nothing waits, nothing is in flight and nothing is owed."""
        waits = any(stream.octets for stream in self.outgoing.values())
        owed = self.ack_owed or self.hello_owed or self.answer is not None
        return self.open and not waits and not self.flights and not owed

    def resume(self, now):
        """Time did not count until now."""
        if self.timer_at is not None:
            self.timer_at = now + self.rto
        if self.silent_since is not None:
            self.silent_since = now

    # Section 5: what arrives

    def take(self, encoded, now):
        try:
            frame = parse_frame(cobs_decode(encoded), peer_of(self.role), self.seed)
        except Damaged:
            return
        if isinstance(frame, Hello):
            self._take_hello(frame)
        elif isinstance(frame, Probe):
            self._take_probe(frame)
        elif isinstance(frame, Ack):
            self._take_ack(frame.newest, frame.before, now)
            self._take_limit(frame.urgent, frame.limit)
        elif self._take_data(frame):
            if frame.ack is not None:
                self._take_ack(*frame.ack, now)
            if frame.limit is not None:
                self._take_limit(False, frame.limit)

    def _take_probe(self, probe):
        if probe.answer:
            self.events.append(("answer", probe.token, probe.padding))
        else:
            self.answer = probe

    def _take_data(self, data):
        """False: the frame was dropped, or ended the session."""
        stream = self.incoming[data.urgent]
        if stream.window == 0 or not stream.take(data.offset, data.payload):
            return False
        self._note_number(data.number)
        self.ack_owed = True
        if not data.payload:
            self.limit_owed[data.urgent] = True
        try:
            while (message := stream.message()) is not None:
                self.events.append(("message", message[0], data.urgent, message[1], self.seed))
        except BrokenRule as error:
            self.leave(f"the peer breaks a rule: {error}")
            return False
        return True

    def _note_number(self, number):
        ahead = 0 if self.newest is None else (number - self.newest) % 256
        if self.newest is None:
            self.newest = number
        elif 0 < ahead < 128:
            self.before = (self.before << ahead | 1 << ahead - 1) & 0xFFFF
            self.newest = number
        elif 256 - ahead <= 16:
            self.before |= 1 << 255 - ahead

    def _take_ack(self, newest, before, now):
        if not self.flights or (self.next_number - 1 - newest) % 256 >= 128:
            return
        remaining = collections.deque()
        has_arrived = False
        for flight in self.flights:
            back = (newest - flight.number) % 256
            if back == 0 or (back <= 16 and before >> back - 1 & 1):
                has_arrived = True
                if self.measured is not None and self.measured[0] == flight.number:
                    self._measure(now - self.measured[1])
                    self.measured = None
            elif back < 128:
                self._lose(flight)
            else:
                remaining.append(flight)
        self.flights = remaining
        if has_arrived:
            self.budget = None
            self.silent_since = now
            self.timer_at = now + self.rto
        self._release()
        if not self.flights:
            self.timer_at = None
            if not any(stream.lost for stream in self.outgoing.values()):
                self.silent_since = None

    def _measure(self, round_trip):
        if self.srtt is None:
            self.srtt = round_trip
            self.rttvar = round_trip / 2
        else:
            self.rttvar += (abs(self.srtt - round_trip) - self.rttvar) / 4
            self.srtt += (round_trip - self.srtt) / 8
        self.rto = min(max(self.srtt + max(4 * self.rttvar, VARIATIONS_MIN_MS), RTO_MIN_MS), RTO_MAX_MS)

    def _lose(self, flight):
        self.outgoing[flight.urgent].lose(flight.start, flight.end)
        if self.measured is not None and self.measured[0] == flight.number:
            self.measured = None

    def _release(self):
        for urgent, stream in self.outgoing.items():
            base = min([stream.next, *(f.start for f in self.flights if f.urgent == urgent), *(p[0] for p in stream.lost)])
            for token in stream.release(base):
                self.events.append(("delivered", token))

    def _take_limit(self, urgent, limit):
        stream = self.outgoing[urgent]
        limit = near(limit, stream.limit)
        if limit > stream.limit:
            stream.limit = limit
            self.credit_at = None

    # Section 5: what is sent

    def poll(self, now):
        """The next frame for the line, with its delimiter, or None. Call it whenever the line is free, until it is None."""
        self._run_timers(now)
        if self.hello_owed or (not self.open and (self.hello_at is None or now >= self.hello_at)):
            return self._hello(now)
        if self.answer is not None:
            answer = to_line(probe_body(self.role, self.answer._replace(answer=True)))
            self.answer = None
            if len(answer) <= self.peer_mtu:
                return answer
        if not self.open:
            return None
        if self.ack_owed and self.limit_owed[True]:  # DATA cannot tell it
            return self._ack(True)
        data = self._next_data(now)
        if data is not None:
            return data
        if self.ack_owed:
            return self._ack(False)
        return None

    def _run_timers(self, now):
        if not self.open:
            return
        if self.silent_since is not None and now >= self.silent_since + SILENCE_MS:
            self.leave("the peer is silent")
        elif self.timer_at is not None and now >= self.timer_at:
            self.rto = min(2 * self.rto, RTO_MAX_MS)
            self._lose(self.flights.popleft())
            self._release()
            self.budget = 1
            self.timer_at = now + self.rto if self.flights else None

    def _ack(self, urgent):
        stream = self.incoming[urgent]
        self._told(urgent)
        self.ack_owed = self.limit_owed[not urgent]
        return to_line(ack_body(self.role, Ack(urgent, self.newest, self.before, stream.told % 65536)), self.seed)

    def _told(self, urgent):
        self.incoming[urgent].told = self.incoming[urgent].limit()
        self.limit_owed[urgent] = False

    def _may_number(self):
        in_flight = (self.next_number - self.flights[0].number) % 256 if self.flights else 0
        return in_flight < FLIGHT_NUMBERS and self.budget != 0

    def _next_data(self, now):
        for urgent in (True, False):
            if self.outgoing[urgent].is_due():
                return self._data(urgent, False, now) if self._may_number() else None
        return self._next_credit(now)

    def _next_credit(self, now):
        blocked = [urgent for urgent in (True, False) if self.outgoing[urgent].is_blocked()]
        if not blocked:
            self.credit_at = None
            if not self.flights:
                self.silent_since = None
            return None
        if self.flights:
            return None
        if self.credit_at is None:
            self.credit_at = now + CREDIT_MS
        if now < self.credit_at:
            return None
        self.credit_at = now + CREDIT_MS
        self.budget = None
        self.credit_urgent = not self.credit_urgent if len(blocked) == 2 else blocked[0]
        return self._data(self.credit_urgent, True, now)

    def _data(self, urgent, is_empty, now):
        ordered = self.incoming[False]
        ack = limit = None
        room = frame_max(self.peer_mtu) - DATA_OCTETS_MIN
        if self.ack_owed:
            ack = (self.newest, self.before)
            room -= ACK_FIELDS_OCTETS
        if self.limit_owed[False] or ordered.is_scarce():
            self._told(False)
            limit = ordered.told % 65536
            room -= LIMIT_FIELD_OCTETS
        if ack is not None:
            self.ack_owed = self.limit_owed[True]
        stream = self.outgoing[urgent]
        start, end = (stream.limit, stream.limit) if is_empty else stream.cut(room)
        flight = Flight(self.next_number, urgent, start, end)
        self.flights.append(flight)
        self.next_number = (self.next_number + 1) % 256
        if self.budget is not None:
            self.budget -= 1
        if self.measured is None:
            self.measured = (flight.number, now)
        if self.timer_at is None:
            self.timer_at = now + self.rto
        if self.silent_since is None:
            self.silent_since = now
        payload = b"" if is_empty else stream.piece(start, end)
        return to_line(data_body(self.role, Data(urgent, flight.number, start % 65536, ack, limit, payload)), self.seed)

    def wake_at(self):
        """When `poll` must be called again though nothing arrived; None is never, 0 is at once."""
        if not self.open:
            return 0 if self.hello_at is None else self.hello_at
        times = [self.timer_at]
        if self.silent_since is not None:
            times.append(self.silent_since + SILENCE_MS)
        if not self.flights:
            times.append(self.credit_at)
        times = [at for at in times if at is not None]
        return min(times) if times else None


# ---------------------------------------------------------------------------------------------------------------------
# Section 6: messages

ATTACH, ACK, REFUSE, SUBSCRIBE, UNSUBSCRIBE, ROTATE, SLEEP, AWAKE, ASK_STATUS = range(9)
STATUS, PUSH, SUBSCRIBED, REFUSED, UNSUBSCRIBED = range(5)
REASONS = ("full", "unknown device", "unknown channel", "not possible")
UPLINKS = ("not connected", "connected", "a person is needed")
CHANNEL_MAX = 65535
KEEPS_OVER_RESET = 1


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

    def varint(self, bits):
        number = 0
        for shift in range(0, bits, 7):
            octet = self.octet()
            number |= (octet & 0x7F) << shift
            if octet < 0x80:
                if number >> bits:
                    raise Damaged("a number that is too large")
                return number
        raise Damaged("a varint that is too long")

    def channel(self, least=1):
        channel = self.varint(16)
        if channel < least:
            raise Damaged("channel")
        return channel

    def octets(self):
        return self.take(self.varint(16))

    def text(self):
        try:
            return self.octets().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damaged("not UTF-8") from error

    def one_of(self, names):
        octet = self.octet()
        if octet >= len(names):
            raise Damaged("an octet without a meaning")
        return names[octet]

    def end(self):
        if self.at != len(self.message):
            raise Damaged("octets left over")


def attach_message(device, largest, urgent, memory, traits):
    numbers = varint(largest) + varint(urgent) + varint(memory)
    return bytes([ATTACH]) + octets_field(device.encode("ascii")) + numbers + bytes([traits])


def ack_message(message):
    return bytes([ACK]) + message


def refuse_message(message, reason):
    return bytes([REFUSE]) + message + bytes([REASONS.index(reason)])


def subscribe_message(channel):
    return bytes([SUBSCRIBE]) + varint(channel)


def unsubscribe_message(channel):
    return bytes([UNSUBSCRIBE]) + varint(channel)


def rotate_message(channel):
    return bytes([ROTATE]) + varint(channel)


def sleep_message(seconds):
    return bytes([SLEEP]) + varint(seconds)


def awake_message():
    return bytes([AWAKE])


def ask_message():
    return bytes([ASK_STATUS])


def parse_to_device(message):
    """A dictionary with "tag" and the fields of a message to the device, or `Damaged`."""
    reader = Reader(message)
    tag = reader.octet()
    if tag == STATUS:
        fields = {"uplink": reader.one_of(UPLINKS), "waiting": reader.octet(), "time": reader.varint(64)}
    elif tag == PUSH:
        fields = {"message": reader.take(8), "channel": reader.channel(), "age": reader.varint(32)}
        fields["body"] = reader.octets()
    elif tag == SUBSCRIBED:
        fields = {"channel": reader.channel(), "push": reader.text(), "p256dh": reader.octets(), "auth": reader.octets()}
        if len(fields["p256dh"]) != 65 or len(fields["auth"]) != 16:
            raise Damaged("length of a key")
    elif tag == REFUSED:
        fields = {"channel": reader.channel(least=0), "reason": reader.one_of(REASONS)}
    elif tag == UNSUBSCRIBED:
        fields = {"channel": reader.channel()}
    else:
        raise Damaged("unknown tag")
    reader.end()
    return {"tag": tag, **fields}


ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def is_device_id(text):
    return 1 <= len(text) <= 32 and ID_CHARACTERS.issuperset(text)


class Memory:
    """The ids of the last messages that were acknowledged; in a file, if there is one, before they are acknowledged."""

    def __init__(self, count, path=None):
        self.count = count
        self.path = path
        self.ids = collections.OrderedDict()
        if path is not None and os.path.exists(path):
            with open(path, encoding="ascii") as file:
                for line in file:
                    self.ids[bytes.fromhex(line)] = True

    def __contains__(self, message):
        return message in self.ids

    def keep(self, message):
        if next(reversed(self.ids), None) == message:
            return
        self.ids[message] = True
        self.ids.move_to_end(message)
        while len(self.ids) > self.count:
            self.ids.popitem(last=False)
        if self.path is not None:
            with open(self.path + ".new", "w", encoding="ascii") as file:
                file.writelines(kept.hex() + "\n" for kept in self.ids)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.path + ".new", self.path)


ACTIONS = {
    "ask": lambda _: ask_message(),
    "subscribe": subscribe_message,
    "unsubscribe": unsubscribe_message,
    "rotate": rotate_message,
    "sleep": sleep_message,
}


class Device:
    """The rules for a device: attaches in each session, prints and acknowledges what it is pushed, and does its actions.

    An acknowledgement is unconfirmed until its DATA frames were acknowledged. One that is unconfirmed when its session
    ends is sent again in the next session, behind Attach. So is an action that was not answered.
    """

    def __init__(self, link, device, report, log, largest=None, memory=None, refusals=None, actions=()):
        self.link = link
        self.splitter = Splitter(link.mtu)
        self.device = device
        self.report = report
        self.log = log
        self.largest = min(MESSAGE_MAX, link.window - LENGTH_OCTETS) if largest is None else largest
        self.memory = Memory(MEMORY) if memory is None else memory
        self.refusals = refusals or {}  # the reason why messages of a channel are refused, by channel
        self.actions = collections.deque(actions)  # (name, argument)
        self.action_sent = False
        self.attached = False  # and it was answered
        self.received = 0
        self.unconfirmed = collections.OrderedDict()
        self.subscriptions = {}  # the URI by channel
        self.replaced = None  # the URI that is rotated away
        self.may_sleep = False  # Sleep has arrived
        self.sleeps_until = None
        self.is_woken = False  # and what waited is still coming
        self.anew_at = None

    def receive(self, octets, now):
        if self.sleeps_until is not None:  # it does not hear
            return
        for encoded in self.splitter.feed(octets):
            self.link.take(encoded, now)
            self._run_events(now)

    def poll(self, now):
        if self.sleeps_until is not None:
            if now < self.sleeps_until:
                return None
            self._wake()
        if self.anew_at is not None and now >= self.anew_at:
            self.anew_at = None
            self.link.leave("starts anew")
            self._run_events(now)
        frame = self.link.poll(now)
        self._run_events(now)
        if frame is None and self.may_sleep and self.link.is_quiet():
            self.may_sleep = False
            self.sleeps_until = now + self.actions[0][1] * 1000
            self.log({"event": "asleep"})
        return frame

    def wake_at(self):
        if self.sleeps_until is not None:
            return self.sleeps_until
        times = [at for at in (self.link.wake_at(), self.anew_at) if at is not None]
        return min(times) if times else None

    def do(self, name, argument=0):
        self.actions.append((name, argument))
        self._next_action()

    def is_done(self, count):
        return self.received >= count and not self.unconfirmed and not self.actions

    def _run_events(self, now):
        while (event := self.link.next_event()) is not None:
            if event[0] == "open":
                self._opened()
            elif event[0] == "closed":
                self._closed(event[1])
            elif event[0] == "message":
                self._message(event[1], event[2], now)
            elif event[0] == "delivered":
                self._delivered(event[1])
            else:
                self.log({"event": event[0], "what": event[1]})

    def _opened(self):
        self.log({"event": "open", "mtu": self.link.peer_mtu, "window": self.link.peer_window})
        traits = KEEPS_OVER_RESET if self.memory.path is not None else 0
        attach = attach_message(self.device, self.largest, self.link.urgent_window, self.memory.count, traits)
        if not self.link.send(attach):
            self.log({"event": "error", "what": "the gateway accepts no message as long as Attach"})
        for message in self.unconfirmed:
            self.link.send(ack_message(message), message)

    def _closed(self, why):
        self.log({"event": "closed", "what": why})
        self.attached = False
        self.action_sent = False
        self.may_sleep = False
        self.anew_at = None

    def _delivered(self, token):
        if token == "sleep":
            self.may_sleep = True
        else:
            self.unconfirmed.pop(token, None)

    def _message(self, octets, urgent, now):
        try:
            fields = parse_to_device(octets)
        except Damaged as error:
            self.log({"event": "invalid", "what": str(error), "hex": octets.hex()})
            return
        tag = fields["tag"]
        if tag == PUSH:
            self._push(fields["message"], fields["channel"], fields["age"], fields["body"], urgent)
        elif tag == STATUS:
            self.log({"event": "status", **{name: fields[name] for name in ("uplink", "waiting", "time")}})
            self._status(fields["waiting"])
        elif tag == REFUSED:
            self.log({"event": "refused", "channel": fields["channel"], "reason": fields["reason"]})
            if fields["channel"] == 0 and fields["reason"] == "unknown device":
                self.anew_at = now + START_ANEW_MS
            self._answered(("subscribe", "rotate"), fields["channel"])
        elif tag == SUBSCRIBED:
            event = {"channel": fields["channel"], "push": fields["push"], "p256dh": fields["p256dh"].hex()}
            self.log({"event": "subscribed", **event})
            self.subscriptions[fields["channel"]] = fields["push"]
            self._answered(("subscribe",), fields["channel"])
            if fields["push"] != self.replaced:
                self._answered(("rotate",), fields["channel"])
        else:
            self.log({"event": "unsubscribed", "channel": fields["channel"]})
            self.subscriptions.pop(fields["channel"], None)
            self._answered(("unsubscribe",), fields["channel"])

    def _push(self, message, channel, age, body, urgent):
        refusal = self.refusals.get(channel)
        copy = message in self.memory
        event = "duplicate" if copy else "received" if refusal is None else "not taken"
        line = {"event": event, "message": message.hex(), "channel": channel, "age": age, "urgent": urgent}
        try:
            line["text"] = body.decode("utf-8")
        except UnicodeDecodeError:
            line["hex"] = body.hex()
        self.report(line)
        if event == "not taken":
            self.link.send(refuse_message(message, refusal))
            return
        self.received += event == "received"
        self.memory.keep(message)
        self.unconfirmed[message] = True
        self.link.send(ack_message(message), message)

    # Actions

    def _status(self, waiting):
        self.attached = True
        if self.action_sent:
            self._answered(("ask",), 0)
        if self.is_woken and waiting == 0:
            self.is_woken = False
            self.actions.popleft()
            self.log({"event": "done", "action": "sleep"})
        self._next_action()

    def _next_action(self):
        if not self.attached or self.action_sent or self.is_woken or not self.actions:
            return
        name, argument = self.actions[0]
        self.action_sent = True
        if name == "rotate":
            self.replaced = self.subscriptions.get(argument)
        self.link.send(ACTIONS[name](argument), "sleep" if name == "sleep" else None)

    def _answered(self, names, argument):
        if self.action_sent and self.actions[0][0] in names and self.actions[0][1] == argument:
            self.log({"event": "done", "action": self.actions.popleft()[0]})
            self.action_sent = False
            self._next_action()

    def _wake(self):
        self.sleeps_until = None
        self.splitter.reset()
        self.action_sent = False
        self.is_woken = True
        self.log({"event": "awake"})
        self.link.send(awake_message())


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


class SerialLine:
    """A serial port: 8 data bits, no parity, 1 stop bit, no flow control. Opens it again whenever it was away."""

    def __init__(self, path, baud):
        self.path = path
        self.speed = getattr(termios, f"B{baud}")
        self.descriptor = None
        self.out = bytearray()
        self.fresh = False

    def fileno(self):
        return self.descriptor

    def connect(self):
        if self.descriptor is not None:
            return True
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            tty.setraw(descriptor, termios.TCSANOW)
            mode = termios.tcgetattr(descriptor)
            mode[0] &= ~(termios.IXON | termios.IXOFF)
            mode[2] &= ~(termios.CSTOPB | termios.PARENB | termios.CRTSCTS)
            mode[2] |= termios.CS8 | termios.CREAD | termios.CLOCAL
            mode[4] = mode[5] = self.speed
            termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        except termios.error:
            os.close(descriptor)
            return False
        self.descriptor = descriptor
        self.out = bytearray(b"\0")
        self.fresh = True
        return True

    def _lost(self):
        os.close(self.descriptor)
        self.descriptor = None
        self.out.clear()

    def read(self):
        if self.descriptor is None:
            return b""
        try:
            octets = os.read(self.descriptor, 4096)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            octets = b""
        if not octets:
            self._lost()
        return octets

    def write(self):
        try:
            del self.out[: os.write(self.descriptor, self.out)]
            if not self.out:
                termios.tcdrain(self.descriptor)  # what waits in a queue carries old acks
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, termios.error):
            self._lost()


class SocketLine:
    """A stream socket; connects again, whenever the gateway is not there."""

    def __init__(self, family, address):
        self.family = family
        self.address = address
        self.socket = None
        self.out = bytearray()
        self.fresh = False  # connected anew: what was half received is lost

    def fileno(self):
        return self.socket.fileno()

    def connect(self):
        if self.socket is not None:
            return True
        attempt = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            attempt.connect(self.address)
            if self.family == socket.AF_INET:
                attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        if not line.out and device.wake_at() is not None:
            wake = min(wake, device.wake_at())
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


def read_action(text):
    name, equals, argument = text.partition("=")
    if name not in ACTIONS or (name == "ask") == bool(equals):
        raise argparse.ArgumentTypeError("an action is ask, or one of subscribe, unsubscribe, rotate, sleep with =NUMBER")
    if name == "ask":
        return name, 0
    number = int(argument)
    if not (0 <= number < 1 << 32 if name == "sleep" else 1 <= number <= CHANNEL_MAX):
        raise argparse.ArgumentTypeError(f"{number} is no number for {name}")
    return name, number


def read_refusal(text):
    channel, _, reason = text.partition("=")
    if reason not in REASONS:
        raise argparse.ArgumentTypeError(f"a reason is one of {', '.join(REASONS)}")
    return int(channel), reason


def read_address(text):
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def arguments(argv):
    number = lambda text: int(text, 0)
    parser = argparse.ArgumentParser(description="A device for the link protocol.")
    parser.add_argument("--id", required=True, help="the device's name: 1 to 32 of A-Z a-z 0-9 . _ -")
    parser.add_argument("--mtu", type=number, default=256, help="octets of the largest frame, 20 to 1024 (256)")
    parser.add_argument("--boot", type=number, help="the first boot id, such as 0x55667788 (random)")
    parser.add_argument("--window", type=number, default=8192, help="octets of room for what is received (8192)")
    parser.add_argument("--urgent", type=number, default=8192, help="the same for urgent messages, 0 for none (8192)")
    parser.add_argument("--largest", type=number, help="octets of the largest message (4096, as far as it fits)")
    parser.add_argument("--memory", type=number, default=MEMORY, help=f"how many ids of messages are kept ({MEMORY})")
    parser.add_argument("--keep", metavar="PATH", help="keep them in this file (in memory only)")
    parser.add_argument("--refuse", type=read_refusal, action="append", default=[], metavar="CHANNEL=REASON",
                        help="refuse the messages of a channel")
    parser.add_argument("--do", type=read_action, action="append", default=[], metavar="ACTION",
                        help="ask, subscribe=CHANNEL, unsubscribe=CHANNEL, rotate=CHANNEL or sleep=SECONDS; repeatable")
    parser.add_argument("--count", type=number, default=1, help="end when so many messages came (1)")
    parser.add_argument("--timeout", type=float, default=60, help="give up after so many seconds (60)")
    parser.add_argument("--symlink", metavar="PATH", help="keep a symbolic link to the terminal here")
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--unix", metavar="PATH", help="connect to this Unix stream socket instead")
    line.add_argument("--tcp", type=read_address, metavar="HOST:PORT", help="connect to this TCP socket instead")
    line.add_argument("--serial", metavar="PATH", help="open this serial port instead")
    parser.add_argument("--baud", type=number, default=115200, help="speed of the serial port (115200)")
    options = parser.parse_args(argv)
    if not is_device_id(options.id):
        parser.error("--id is 1 to 32 of A-Z a-z 0-9 . _ -")
    if not MTU_MIN <= options.mtu <= MTU_MAX:
        parser.error("--mtu is from 20 to 1024")
    if options.boot is None:
        options.boot = random.SystemRandom().randint(1, 0xFFFFFFFF)
    if not 1 <= options.boot <= 0xFFFFFFFF:
        parser.error("--boot is from 1 to 4294967295")
    if not MESSAGE_MIN + LENGTH_OCTETS <= options.window <= WINDOW_MAX:
        parser.error("--window is from 34 to 32767")
    if not (options.urgent == 0 or WINDOW_MIN <= options.urgent <= WINDOW_MAX):
        parser.error("--urgent is 0, or from 32 to 32767")
    most = min(MESSAGE_MAX, options.window - LENGTH_OCTETS)
    if options.largest is not None and not MESSAGE_MIN <= options.largest <= most:
        parser.error(f"--largest is from 32 to {most}")
    if not 0 <= options.memory <= 65535:
        parser.error("--memory is from 0 to 65535")
    if options.symlink and (options.unix or options.tcp or options.serial):
        parser.error("--symlink is for a pseudo-terminal only")
    if options.serial and not hasattr(termios, f"B{options.baud}"):
        parser.error("--baud is no usual speed")
    return options


def main(argv=None):
    options = arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    link = Link(DEVICE, options.boot, options.mtu, options.window, options.urgent)
    memory = Memory(options.memory, options.keep)
    refusals, actions = dict(options.refuse), options.do
    device = Device(link, options.id, print_line, print_log, options.largest, memory, refusals, actions)
    serve = lambda line: 0 if run(line, device, options.count, options.timeout) else 1
    if options.unix:
        return serve(SocketLine(socket.AF_UNIX, options.unix))
    if options.tcp:
        return serve(SocketLine(socket.AF_INET, options.tcp))
    if options.serial:
        return serve(SerialLine(options.serial, options.baud))
    line = Terminal()
    try:
        if options.symlink:
            set_symlink(line.name, options.symlink)
        print(f"link {line.name}", flush=True)
        return serve(line)
    finally:
        if options.symlink:
            remove_symlink(line.name, options.symlink)


if __name__ == "__main__":
    sys.exit(main())
