//! The link protocol: every octet between a gateway and a device. Version 0, a draft: it may change until version 1.
//!
//! # 1. What a device is
//!
//! A gateway subscribes at a push service for its devices, holds the keys, decrypts what is pushed and hands a device
//! the plaintext. The device does no cryptography. It is on a *line* with one gateway, says who it is, takes pushes,
//! and acknowledges each when it cannot be lost any more; only then the gateway acknowledges it at the push service.
//!
//! This page suffices to write a device in any language. Numbers are unsigned and little endian, octets hexadecimal.
//! *Dropped* means ignored without an answer, as if it had been lost.
//!
//! A line carries octets both ways. It may lose, double and damage them, and it may echo:
//!
//! - serial: 8 data bits, no parity, 1 stop bit, no flow control. Every octet value occurs, 11 and 13 too: switch
//!   XON/XOFF and all terminal processing off. Made for 9600 baud and more; slower lines work, but frames may be sent
//!   twice.
//! - Unix or TCP stream socket on which the gateway listens. A newer connection replaces the one before.
//!
//! A line that packs octets into packets is used as a stream: packet boundaries mean nothing. When a connection ends,
//! half a frame is lost and nothing else is decided; a device connects again and may keep its state. The gateway starts
//! anew with each connection.
//!
//! # 2. Frames in the stream
//!
//! Each frame is encoded so that it holds no zero octet, and ended by one zero octet (`00`, the delimiter). A side
//! begins each connection with one `00`, so that what the line held before does not spoil its first frame.
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
//! To decode, read a length octet `c` (1 to 255) and copy the `c - 1` octets that follow; if `c` is not 255 and octets
//! are left, write a zero; repeat until none are left. Octets missing make the frame damaged.
//!
//! - Empty frames (`00` behind `00`) and damaged ones are dropped. The next frame begins behind the next `00`.
//! - The *MTU* of a side, 20 to 1024, is the largest frame that it accepts, as sent: encoded, with delimiter. A longer
//!   one is dropped up to its delimiter. A frame of `n` octets takes at most `n + ceil(n / 254) + 1` on the line, so
//!   DATA carries 11 octets at MTU 20, 55 at 64, 247 at 256, 1011 at 1024.
//!
//! # 3. Kinds of frames
//!
//! Before encoding, with the number of octets of each field:
//!
//! ```text
//! HELLO   kind 1, version 1, boot id 4, echo 4, mtu 2, largest message 2, CRC 4     18 in all, on the line 20
//! DATA    kind 1, seq 1, ack 1, payload, CRC 4                                      7 and the payload
//! ACK     kind 1, ack 1, CRC 4                                                      6 in all, on the line 8
//! ```
//!
//! The octet `kind` is 10 for HELLO, 20 for DATA, 30 for ACK, plus flags. Other flags are sent as 0 and ignored:
//!
//! | flag | in | means |
//! | --- | --- | --- |
//! | DEVICE 08 | all | the sender is the device |
//! | ASK 01 | HELLO | the sender is not open and wants a HELLO in return |
//! | FIRST 01, LAST 02 | DATA | a message starts, ends in this frame; one frame may have both or none |
//! | GAP 01 | ACK | the DATA frame that arrived last is ahead of `ack` (section 5) |
//!
//! - `version`: 0. In every version HELLO starts with kind and version and ends with its CRC; what is between may
//!   differ.
//! - `boot id`: of the sender, new at each start and never 0. Random, or a counter kept over power loss.
//! - `echo`: the boot id in the last HELLO that the sender took from its peer, or 0.
//! - `mtu`, `largest message`: octets that the sender accepts, at least 20 and 34, else the HELLO is dropped. Larger
//!   than 1024 and 4096 counts as these. A device that subscribes takes 601, one that takes any push 4007.
//! - `seq`: the number of this DATA frame; 0 for the first in a session, then one more each, modulo 256.
//! - `ack`: the number of the DATA frame that the sender expects next; all before it have arrived.
//!
//! The CRC is CRC-32C (Castagnoli, "CRC-32/ISCSI"): polynomial `1edc6f41`, initial value `ffffffff`, input and output
//! reflected, final exclusive-or `ffffffff`; of the characters `123456789` it is `e3069283`. In HELLO it is taken over
//! all octets before it. In DATA and ACK it is taken over 8 octets that are not sent, the *seed*, and then all octets
//! before it. The seed is the boot id of the gateway and the boot id of the device, so a frame of an earlier session
//! fails.
//!
//! ```text
//! gateway boot id 11223344, device boot id 55667788      seed 44 33 22 11 88 77 66 55
//! ACK 30 01, CRC-32C of seed and 30 01 is e134dd81       frame 30 01 81 dd 34 e1
//! ```
//!
//! These frames are dropped: of an unknown kind, of a wrong length or CRC, DATA and ACK outside a session, and those
//! whose DEVICE flag is that of the receiver's own role. So an echo does no harm, and two gateways or two devices never
//! open a session.
//!
//! # 4. Opening a session
//!
//! ```text
//!             start: choose a boot id
//!                       |
//!                       v
//!   CLOSED: send HELLO with ASK at once, and again 1000 ms after each HELLO sent
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
//! 1. Another version: tell whoever operates this side, drop the HELLO. There is no session between versions.
//! 2. ASK is set: note that one HELLO is owed. However many ask before it is sent, one is owed.
//! 3. OPEN, and the boot id is not that of the session's peer: become CLOSED as above.
//! 4. CLOSED: note boot id, mtu and largest message as the peer's. If `echo` is my boot id, become OPEN. Still OPEN:
//!    nothing in it matters.
//!
//! A HELLO that is owed or due has my boot id, the noted peer's as echo, and ASK exactly if I am CLOSED.
//!
//! Being OPEN fixes the session: the seed, the session MTU (the smaller of the two; each side still accepts its own),
//! `seq` 0 on both sides, nothing outstanding, no message half received. Nothing is carried over from an earlier
//! session. On an idle session nothing is sent: that a peer is gone is noticed with the next message.
//!
//! # 5. Messages over frames
//!
//! A message of 0 to 4096 octets, and no more than the peer's largest, is cut into DATA frames that fit the session
//! MTU. Messages arrive whole, in order, and once in each session.
//!
//! **Order.** Whenever the line is free, the first of these that is due is sent: HELLO; ACK with GAP; DATA, the lowest
//! number first; ACK. Hand a frame to the line when the one before has left: what waits in a queue carries old acks.
//!
//! **Receiving DATA.** Let `d` be `(seq - expected) mod 256`. In every case look at its `ack`, too, and owe an ACK:
//!
//! - `d` is 0: take the payload, expect the next number.
//! - `d` is 1 to 127, *ahead*: drop the payload; the ACK has GAP. Frames that came early are not kept.
//! - `d` is 128 to 255, a copy: drop the payload.
//!
//! One ACK answers everything before it, and whether it has GAP is decided by the last DATA received. Without GAP, any
//! DATA sent instead discharges it. FIRST drops a message that was half received; payload outside a message is dropped;
//! a message that outgrows my largest is dropped up to its LAST.
//!
//! **Receiving `ack`.** *Outstanding* is DATA that was sent and is not known to have arrived. Let `a` be its lowest
//! number (if there is none, the next to be sent) and `n` how many. If `(ack - a) mod 256` is more than `n`, ignore
//! `ack` and GAP. Otherwise so many have arrived. If GAP is set and frames remain outstanding, send them again, lowest
//! first, as the window permits; after that ignore GAP until some arrive. A frame sent again is the same but for `ack`,
//! which is the current one.
//!
//! **Window.** Only the lowest `w` numbers not known to have arrived may be sent. `w` is 4 at first and grows by one
//! for each frame that arrives, up to 4096 / MTU and at most 16. A smaller `w` is allowed; always 1 makes the simplest
//! sender.
//!
//! **Timer.** It runs while frames are outstanding, from the moment the first is handed to the line, and starts anew
//! when some arrive and when GAP makes them be sent again. When it runs out, its time is doubled, `w` becomes 1, the
//! timer starts anew, and the lowest is sent again; the others follow as `w` grows.
//!
//! Its time is at first the larger of 1000 ms and 4 ms for each octet of the MTU. Then it follows round trips (RFC
//! 6298, granularity 1 ms): one frame at a time is measured, from its first sending; sending anything again ends the
//! measurement; a doubled time stays until the next one is complete. It is never less than 100 ms or 4 ms for each
//! octet of the MTU, and never more than 8000 ms. Measuring may be left out: then it is the first time again when
//! frames arrive.
//!
//! **Silence.** When frames are outstanding and none arrives for 30 s, the peer is silent: leave the session.
//!
//! # 6. Messages
//!
//! A message is a tag of one octet and fields without padding:
//!
//! ```text
//! to the gateway                               to the device
//! 00 Attach       device text                  00 Push          message id8, channel, body octets
//! 01 Ack          message id8                  01 Subscribed    channel, push text, p256dh octets, auth octets
//! 02 Refuse       message id8, reason          02 Refused       channel, reason
//! 03 Subscribe    channel                      03 Unsubscribed  channel
//! 04 Unsubscribe  channel
//! ```
//!
//! - `channel` and lengths are *varints* of at most 65535: 7 bits an octet, lowest first, the high bit set on all but
//!   the last; `05` is 5, `ac 02` is 300. The shortest form is sent; a longer one may be dropped or understood.
//! - `octets` and `text` are a length and so many octets; text is UTF-8. `id8` is 8 octets, shown in the order sent.
//! - `device` is 1 to 32 of `A-Z a-z 0-9 . _ -`. `channel` is 1 to 65535; 0 occurs in Refused alone. `p256dh` has 65
//!   octets, `auth` 16. The gateway sends a `push` of at most 512 and a `body` of at most 3993.
//! - `reason` is one octet: 00 full, 01 unknown device, 02 unknown channel, 03 not possible.
//!
//! A message with an unknown tag or reason, other values than these, or octets missing or left over, is dropped.
//!
//! **Attach** is the first message of a device in each session; a second one is ignored. If it names the device that
//! the gateway expects on this line, it has no answer: pushes and answers follow, and none come before it. If it does
//! not, or if another message comes first, the answer is Refused (channel 0, unknown device), and whatever else the
//! device says in this session is acknowledged by frames but ignored. Only a person can help: a device may start anew
//! each minute.
//!
//! **Push** hands over a message of a channel. `body` is the plaintext.
//!
//! - A device answers with **Ack** once the message cannot be lost any more: it has reached its final recipient. (ACK
//!   is a frame and says that frames arrived; Ack is a message and says this.) After it the message is not pushed
//!   again, unless the Ack was lost. So the same id may come again, in this session or another: a device keeps the ids
//!   of the last 16 messages or more that it acknowledged, over power loss if it can. A copy goes no further and is
//!   acknowledged again.
//! - Or it answers with **Refuse**: *full*, and the message is pushed again after about 5 s, later less often; or *unknown channel* or
//!   *not possible*, and it is not pushed again unless the gateway restarts. A refused id is not kept; if it comes
//!   again, it is a new message.
//! - At most 8 pushes wait for their answer at once. Those of a channel come in the order in which the service accepted
//!   them, but what was refused or not answered comes later.
//! - A push that is not answered within 10 s, or before it expires, may be given up, and is pushed again later. A late
//!   Ack still counts, in a later session too: send it behind Attach. An Ack of an unknown id is ignored.
//! - A message larger than the device's largest (a push adds up to 14 octets to its body) is not sent. It stays with
//!   the service until it expires or the device takes more.
//!
//! **Subscribe** asks for a subscription; the device chooses the channel. The answer is **Subscribed** once the push
//! service agreed, which may take as long as that cannot be reached, so it may come in a later session; or **Refused**
//! (full) when the device has 8 channels or the gateway no room. Asking again is harmless and gets the same answer.
//! Subscribed also comes unasked: for channels set up at the gateway, and with a new `push` when the service lost the
//! old one. `push`, `p256dh` and `auth` are what an application server needs to push: URI, public key, authentication
//! secret. Hand them on confidentially or ignore them.
//!
//! **Unsubscribe** ends it. The answer is **Unsubscribed** once the service agreed, at once for a channel that does not
//! exist; pushes may come until then. Ask again in the next session if it did not come. Unsubscribed may come unasked.
//!
//! # 7. A worked exchange
//!
//! The gateway has boot id 11223344, MTU 256, largest message 256. The device `d1` has boot id 55667788, MTU 20,
//! largest message 512. `G` is sent by the gateway, `D` by the device, whose first HELLO is lost. The push has the id
//! 0123456789abcdef, channel 1 and the body `hello`; at this MTU it takes two frames. The `00` that begins each
//! direction is not shown.
//!
//! ```text
//! D HELLO ASK           02 19 05 88 77 66 55 01 01 01 02 14 01 06 02 14 06 14 8d 00     lost
//! G HELLO ASK           02 11 05 44 33 22 11 01 01 01 01 02 01 06 01 ff 0d 33 d0 00
//! D HELLO ASK           02 19 0a 88 77 66 55 44 33 22 11 14 01 06 02 39 fb 47 46 00     the gateway is OPEN
//! G HELLO               02 10 09 44 33 22 11 88 77 66 55 02 01 06 01 5c 04 f2 b6 00     the device is OPEN
//! D DATA 0 Attach       02 2b 01 01 08 02 64 31 50 b3 f7 f2 00
//! G ACK 1               07 30 01 81 dd 34 e1 00
//! G DATA 0 Push, FIRST  02 21 02 01 0f 01 23 45 67 89 ab cd ef 01 05 8a 36 4b bc 00
//! G DATA 1 Push, LAST   0d 22 01 01 68 65 6c 6c 6f c6 fb e9 04 00
//! D DATA 1 Ack, ack 2   11 2b 01 02 01 01 23 45 67 89 ab cd ef 6f 78 a0 b0 00
//! G ACK 2               07 30 02 75 2e 64 f2 00
//! ```
//!
//! The second of these before encoding, its checksum being d0330dff:
//!
//! ```text
//! 10 + 01, version 0, boot id, echo 0, MTU 256, 256, CRC   11 00 44 33 22 11 00 00 00 00 00 01 00 01 ff 0d 33 d0
//! ```
//!
//! # 8. Limits
//!
//! | limit | value | constant in [`limits`](crate::limits) |
//! | --- | --- | --- |
//! | MTU | 20 to 1024 octets | `LINK_MTU_BYTES_MIN`, `_MAX` |
//! | largest message | 34 to 4096 octets | `LINK_MESSAGE_BYTES_MIN`, `_MAX` |
//! | HELLO while closed | each 1000 ms | `HELLO_MS` |
//! | window at first | 4 frames | `LINK_WINDOW_START_FRAMES` |
//! | window at most | 16 frames, 4096 octets | `LINK_WINDOW_FRAMES`, `LINK_WINDOW_BYTES` |
//! | timer at first | 1000 ms | `LINK_RTO_MS_START` |
//! | timer at least | 100 ms, 4 ms an octet of the MTU | `LINK_RTO_MS_MIN`, `_PER_MTU_BYTE` |
//! | timer at most | 8000 ms | `LINK_RTO_MS_MAX` |
//! | silence | 30 s | `LINK_SILENCE_MS` |
//! | message ids kept | 16 or more | `DEVICE_SEEN_COUNT` |
//! | pushes without answer | 8 | `DELIVERY_PER_DEVICE_MAX` |
//! | channels of a device | 8 | `CHANNELS_PER_DEVICE_MAX` |
//!
//! In Rust this module parses and emits; [`link`](crate::link) is the machine of a session,
//! [`device`](crate::link::device) a device. Messages are postcard encodings of [`ToGateway`] and [`ToDevice`].

pub mod cobs;
pub mod frame;
mod id;
pub mod message;

pub use frame::Role;
pub use id::{ChannelId, DEVICE_ID_BYTES_MAX, DeviceId, InvalidDeviceId, MessageId};
pub use message::{Refusal, ToDevice, ToGateway};

/// The version that this crate speaks; 0 is a draft.
pub const VERSION: u8 = 0;
