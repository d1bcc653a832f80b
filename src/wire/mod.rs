//! The link protocol: every octet between a gateway and a device.
//!
//! This page is the specification; it suffices to write a device in any language. It is **version 0**, a draft: its
//! octets may change until version 1 is frozen. This module parses and emits; [`link`](crate::link) is the machine.
//! "Must be dropped" below means: ignored without an answer, as if it had been lost.
//!
//! A link joins one gateway and one device over a line that may lose, double and damage octets. The link repairs that
//! and carries messages of 0 to 4096 octets whole, in order and once in each session.
//!
//! All numbers are unsigned and little endian. Octets are written in hexadecimal.
//!
//! # 1. Frames in a byte stream
//!
//! A stream is a sequence of frames, each encoded so that it holds no zero octet and ended by one zero octet (`00`, the
//! delimiter). On a packet link each packet is one encoded frame with its delimiter.
//!
//! The encoding is COBS, consistent overhead byte stuffing. To encode, put one zero behind the frame and cut the whole
//! into blocks: a block ends behind a zero, or behind 254 octets without one. A block of `n` octets and a zero becomes
//! the octet `n + 1` and the `n` octets; a block of 254 octets without a zero becomes `ff` and the 254 octets. A final
//! `01` that directly follows a block of 254 may be left out; both forms must be understood.
//!
//! ```text
//! frame   11 22 00 33         encoded, delimited   03 11 22 02 33 00
//! frame   00                                       01 01 00
//! frame   01 .. fe (254 of them)                   ff 01 .. fe 00   or   ff 01 .. fe 01 00
//! ```
//!
//! To decode, read a length octet `c` (1 to 255) and copy the `c - 1` octets that follow; if `c` is not 255 and
//! octets are left, write a zero; repeat until none are left. Octets missing make the frame damaged.
//!
//! - The length of a frame always counts encoding and delimiter: at most the MTU, which is 20 to 1024 octets and is
//!   agreed on in HELLO. A longer frame must be dropped up to its delimiter.
//! - An empty frame (a delimiter that follows a delimiter) must be dropped. A side that starts on a byte stream should
//!   send one `00` first, so that what the line held before does not spoil its first frame.
//! - Whatever is wrong with a frame, the next one starts behind the next `00`.
//!
//! # 2. The checksum
//!
//! Each frame, before encoding, is a body and 4 octets of checksum:
//!
//! ```text
//! | kind and flags 1 | ... body ... | CRC-32C 4, little endian |
//! ```
//!
//! CRC-32C (Castagnoli, "CRC-32/ISCSI"): polynomial `1edc6f41`, initial value `ffffffff`, input and output reflected,
//! final exclusive-or `ffffffff`. The check value of the nine characters `123456789` is `e3069283`.
//!
//! The checksum of a HELLO is taken over its body. The checksum of DATA and ACK is taken over 8 octets that are not
//! sent, the *session seed*, and then the body. The seed is the boot id of the gateway (4 octets) and the boot id of
//! the device (4 octets). A frame of an earlier session therefore fails like a damaged one.
//!
//! ```text
//! gateway boot id 11223344, device boot id 55667788: seed 44 33 22 11 88 77 66 55
//! body 30 01                              CRC-32C of seed and body e134dd81
//! frame 30 01 81 dd 34 e1, on the line    07 30 01 81 dd 34 e1 00
//! ```
//!
//! # 3. Kinds of frames
//!
//! The high four bits of the first octet are the kind, the low four are flags. Flags not named here are sent as 0 and
//! ignored. A frame of another kind, or of a length that its kind does not allow, must be dropped.
//!
//! ```text
//! HELLO   | 10 + ASK 1 | version 1 | boot id 4 | echo 4 | mtu 2 | largest message 2 | CRC 4 |     18, on the line 20
//! DATA    | 20 + FIRST 1 + LAST 2 | seq 1 | ack 1 | payload 0 or more | CRC 4 |     7 or more, on the line 9 or more
//! ACK     | 30 + GAP 1 | ack 1 | CRC 4 |                                             6, on the line 8
//! ```
//!
//! - `version`: 0. All else in a HELLO is read only if the version is known; another version may have another length.
//! - `boot id`: the sender's, never 0. Chosen at random at each start, so that it is new to the peer.
//! - `echo`: the boot id in the last HELLO that the sender took from its peer, or 0 if there is none.
//! - `mtu`: octets of the largest frame that the sender accepts, 20 or more.
//! - `largest message`: octets of the largest message that the sender accepts.
//! - `ASK` (01): the sender is not open and wants a HELLO in return.
//! - `seq`: the number of this DATA frame; 0 for the first in a session, then one more each, modulo 256.
//! - `ack`: the number of the DATA frame that the sender expects next; all before it have arrived.
//! - `FIRST` (01), `LAST` (02): a message starts, ends in this frame. A message in one frame has both.
//! - `GAP` (01): a DATA frame with a later number than `ack` arrived.
//!
//! # 4. Opening a session
//!
//! ```text
//!             start: choose a boot id
//!                       |
//!                       v
//!   CLOSED: send HELLO with ASK at once, and again each second
//!      |                                                   ^
//!      | a HELLO whose echo is my boot id                  | a HELLO with another boot id than the session's, or
//!      v                                                   | the peer is silent (section 5):
//!   OPEN: DATA and ACK are sent and understood             | forget peer and session, add 1 to my boot id (0 is
//!      |                                                   | skipped)
//!      +---------------------------------------------------+
//! ```
//!
//! A side that takes a HELLO does this, in this order:
//!
//! 1. Another version: report it, drop the HELLO. There is no session between different versions.
//! 2. ASK is set: note that one HELLO is owed. However many ask before it is sent, one is owed.
//! 3. OPEN, and the boot id is not that of the session's peer: become CLOSED as above.
//! 4. CLOSED: note boot id, mtu and largest message as the peer's. If `echo` is my boot id, become OPEN.
//!
//! A HELLO that is owed, or due because a second passed in CLOSED, is sent with my boot id, the noted peer's as echo,
//! and ASK exactly if I am CLOSED. Sent as an answer it also counts as that second's.
//!
//! Being OPEN fixes the session: seed from both boot ids, MTU = the smaller of the two, `seq` and expected `seq` 0 on
//! both sides, nothing in flight, no message half received. Nothing is carried over from an earlier session. As a side
//! that leaves a session changes its boot id, no two sessions have the same seed. DATA and ACK that arrive in CLOSED
//! must be dropped.
//!
//! # 5. Messages over frames
//!
//! The sender cuts a message into DATA frames no longer than the MTU, FIRST on the first and LAST on the last; a
//! message of 0 octets is one frame with both. Frames of the next message follow at once. A message larger than the
//! peer's largest is never sent.
//!
//! Sequence arithmetic is modulo 256: `seq` is *ahead* of the expected number `e` if `(seq - e) mod 256` is 1 to 127,
//! and *old* if it is 128 to 255.
//!
//! Receiving DATA:
//!
//! - `seq` is the expected number: take the payload, expect the next number, owe an ACK.
//! - `seq` is old (a copy): drop the payload, owe an ACK.
//! - `seq` is ahead: drop the payload, owe an ACK with GAP. Frames that came early are not kept.
//! - FIRST begins a message and drops one that was half received; payload outside a message is dropped; a message that
//!   grows larger than what was announced is dropped up to its end. The frames of these are acknowledged all the same.
//!
//! An ACK that is owed is sent as soon as the line is free. Without GAP it may ride on a DATA frame. One ACK answers
//! everything received before it.
//!
//! Receiving `ack`, in DATA or ACK: let `a` be the oldest number in flight and `n` how many are in flight. If
//! `(ack - a) mod 256` is more than `n`, the field is ignored, and GAP with it. Otherwise so many have arrived. If GAP
//! is set and frames remain in flight, they are all sent again in order, once for each value of `ack`.
//!
//! Window: at most 4 frames are in flight at the start of a session, one more for each that arrives, at most 16. A
//! smaller window is allowed; 1 makes the simplest sender.
//!
//! Timer: it runs while frames are in flight and starts anew when some arrive. When it runs out, the window is set to
//! 1, its time is doubled, and the oldest frame is sent again, then the others as the window opens. Its time is
//! 1000 ms at first and then follows measured round trips (RFC 6298, in milliseconds; frames sent twice are not
//! measured), at least 100 ms, at most 3000 ms. A fixed 1000 ms that doubles is allowed.
//!
//! Silence: when the timer runs out for the tenth time for the same frame (its tenth sending was not answered), the
//! peer is silent: leave the session as in section 4.
//!
//! | limit | value | constant |
//! | --- | --- | --- |
//! | MTU | 20 to 1024 octets | [`LINK_MTU_BYTES_MIN`](crate::limits::LINK_MTU_BYTES_MIN), `_MAX` |
//! | message | 4096 octets | [`LINK_MESSAGE_BYTES_MAX`](crate::limits::LINK_MESSAGE_BYTES_MAX) |
//! | HELLO while closed | each 1000 ms | [`HELLO_MS`](crate::limits::HELLO_MS) |
//! | window | 4 to 16 frames | [`LINK_WINDOW_START_FRAMES`](crate::limits::LINK_WINDOW_START_FRAMES), [`LINK_WINDOW_FRAMES`](crate::limits::LINK_WINDOW_FRAMES) |
//! | timer | 1000 ms, 100 to 3000 ms | [`LINK_RTO_MS_START`](crate::limits::LINK_RTO_MS_START), `_MIN`, `_MAX` |
//! | sendings of a frame | 10 | [`FRAME_SEND_COUNT_MAX`](crate::limits::FRAME_SEND_COUNT_MAX) |
//! | message ids remembered | 16 or more | [`DEVICE_SEEN_COUNT`](crate::limits::DEVICE_SEEN_COUNT) |
//!
//! # 6. Messages
//!
//! A message is a tag of one octet and fields without padding. `varint` is a number in groups of 7 bits, lowest first,
//! the high bit set on all but the last octet: `05` is 5, `ac 02` is 300. `octets` and `text` are a varint length and
//! so many octets (text is UTF-8). `id8` is 8 octets as they are. Octets left over make a message invalid; an invalid
//! message, or one with an unknown tag, is dropped.
//!
//! To the gateway ([`ToGateway`]):
//!
//! ```text
//! 00 Attach       device text: 1 to 32 characters of A-Z a-z 0-9 . _ -
//! 01 Ack          message id8
//! 02 Refuse       message id8, reason
//! 03 Subscribe    channel varint, at most 65535
//! 04 Unsubscribe  channel varint
//! ```
//!
//! To the device ([`ToDevice`]):
//!
//! ```text
//! 00 Push         message id8, channel varint, body octets
//! 01 Subscribed   channel varint, push text, p256dh octets (65 of them), auth octets (16 of them)
//! 02 Refused      channel varint, reason
//! 03 Unsubscribed channel varint
//!
//! reason          00 full, 01 unknown device, 02 unknown channel, 03 not possible
//! ```
//!
//! Rules for a device:
//!
//! - Attach is its first message in each session. A gateway that expects another device on this link answers Refused
//!   (channel 0, unknown device) and ignores the rest of the session.
//! - Ack means that the message reached its final recipient: only then is it acknowledged at the push service and
//!   never pushed again. A device sends it once the message cannot be lost any more. Refuse means that the device will
//!   not take it: *full* now, anything else ever.
//! - The same message may come again, with the same id, in this session or another. A device remembers the ids of at
//!   least the last 16 messages that it acknowledged. A copy is not given to the application again, and it is
//!   acknowledged again.
//! - Subscribe is answered by Subscribed or Refused; asking again for a channel that exists gets the same answer again.
//!   A channel is the device's own number for a subscription; channel 0 is not used.
//!
//! # 7. A worked exchange
//!
//! The gateway has boot id 11223344, MTU 256, largest message 256. The device `d1` has boot id 55667788, MTU 20, largest
//! message 512. `G` is sent by the gateway, `D` by the device. The push has the id 0123456789abcdef, channel 1 and the
//! body `hello`; at this MTU a frame carries 11 octets, so it takes two.
//!
//! ```text
//! G HELLO ASK           02 11 05 44 33 22 11 01 01 01 01 02 01 06 01 ff 0d 33 d0 00
//! D HELLO ASK           02 11 0a 88 77 66 55 44 33 22 11 14 01 06 02 eb bc a5 ed 00     the gateway is OPEN
//! G HELLO               02 10 09 44 33 22 11 88 77 66 55 02 01 06 01 5c 04 f2 b6 00     the device is OPEN
//! D DATA 0 Attach       02 23 01 01 08 02 64 31 03 4e da bc 00
//! G ACK 1               07 30 01 81 dd 34 e1 00
//! G DATA 0 Push, FIRST  02 21 02 01 0f 01 23 45 67 89 ab cd ef 01 05 8a 36 4b bc 00
//! G DATA 1 Push, LAST   0d 22 01 01 68 65 6c 6c 6f c6 fb e9 04 00
//! D DATA 1 Ack, ack 2   11 23 01 02 01 01 23 45 67 89 ab cd ef 1e af c2 3e 00
//! G ACK 2               07 30 02 75 2e 64 f2 00
//! ```
//!
//! The first of these before encoding, its checksum being d0330dff:
//!
//! ```text
//! 11 00 44 33 22 11 00 00 00 00 00 01 00 01 ff 0d 33 d0
//! ```

pub mod cobs;
pub mod frame;
mod id;
pub mod message;

pub use id::{ChannelId, DEVICE_ID_BYTES_MAX, DeviceId, InvalidDeviceId, MessageId};
pub use message::{Refusal, ToDevice, ToGateway};

/// The version that this crate speaks; 0 is a draft.
pub const VERSION: u8 = 0;
