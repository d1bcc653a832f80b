//! The link protocol: every octet between a gateway and a device. Version 1.
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
//!   XON/XOFF and all terminal processing off. Made for 9600 baud and more.
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
//! `01` that directly follows a block of 254 may be left out, and must be where the frame would else be larger than the MTU;
//! both forms must be understood.
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
//!   DATA carries 10 octets at MTU 20, 54 at 64, 246 at 256, 1010 at 1024.
//!
//! # 3. Kinds of frames
//!
//! Before encoding, with the number of octets of each field:
//!
//! ```text
//! HELLO   kind 1, version 1, boot id 4, echo 4, mtu 2, window 2, CRC 4                  18 in all, on the line 20
//! DATA    kind 1, number 1, offset 2, [newest 1, before 2], [limit 2], payload, CRC 4   8 to 13 and the payload
//! ACK     kind 1, newest 1, before 2, limit 2, CRC 4                                    10 in all, on the line 12
//! PROBE   kind 1, token 1, padding, CRC 4                                               6 and the padding
//! ```
//!
//! The octet `kind` is 10 for HELLO, 20 for DATA, 30 for ACK, 40 for PROBE, plus flags. Other flags are sent as 0 and
//! ignored:
//!
//! | flag | in | means |
//! | --- | --- | --- |
//! | DEVICE 08 | all | the sender is the device |
//! | ASK 01 | HELLO | the sender is not open and wants a HELLO in return |
//! | URGENT 01 | DATA | the payload belongs to the urgent stream, else to the ordered one (section 5) |
//! | ACK 02 | DATA | `newest` and `before` are there |
//! | LIMIT 04 | DATA | `limit` is there; it is that of the ordered stream |
//! | URGENT 01 | ACK | `limit` is that of the urgent stream |
//! | ANSWER 01 | PROBE | this is the answer |
//!
//! - `version`: 1. In every version HELLO starts with kind and version and ends with its CRC; what is between may differ.
//! - `boot id`: of the sender, new at each start and never 0 (such a HELLO is dropped). Random, or a counter kept over power
//!   loss.
//! - `echo`: the boot id in the last HELLO that the sender took from its peer, or 0.
//! - `mtu`, `window`: octets of the largest frame, and of the ordered stream, that the sender has room for; at least 20 and
//!   34, else the HELLO is dropped. An MTU above 1024 counts as 1024, a window above 32767 as that. Each side sends frames no
//!   larger than the *peer's* MTU.
//! - `number`: of this DATA frame; 0 for the first in a session, then one more each, modulo 256. A number is never used
//!   again for the same octets: what is sent again is a new frame.
//! - `offset`: the place of the first octet of the payload in its stream, modulo 65536.
//! - `newest`, `before`: the number of the newest DATA frame that arrived, and which of the 16 before it did: bit 0 (the
//!   lowest) stands for `newest - 1`, bit 15 for `newest - 16`.
//! - `limit`: the offset from which on the sender of this frame has no room in the stream. An ACK has that of the urgent stream
//!   when DATA of it arrived, or its limit rose, since it was told last; else that of the ordered one.
//! - `token`, `padding`: chosen by whoever probes.
//!
//! The CRC is CRC-32C (Castagnoli, "CRC-32/ISCSI"): polynomial `1edc6f41`, initial value `ffffffff`, input and output
//! reflected, final exclusive-or `ffffffff`; of the characters `123456789` it is `e3069283`. In HELLO and PROBE it is taken
//! over all octets before it. In DATA and ACK it is taken over 8 octets that are not sent, the *seed*, and then all octets
//! before it. The seed is the boot id of the gateway and the boot id of the device, so a frame of an earlier session fails.
//!
//! ```text
//! gateway boot id 11223344, device boot id 55667788      seed 44 33 22 11 88 77 66 55
//! ACK 30 01 00 00 20 01, CRC-32C of seed and these is 6ad392b6     frame 30 01 00 00 20 01 b6 92 d3 6a
//! ```
//!
//! These frames are dropped: of an unknown kind, too short for their fields or (HELLO of version 1, ACK) of another length, of
//! a wrong CRC, DATA and ACK outside a session, and those whose DEVICE flag is that of the receiver's own role. So an echo does no
//! harm, and two gateways or two devices never open a session.
//!
//! **PROBE** asks whether anybody is there, how well frames of a length pass, and how long they take. It needs no session
//! and changes nothing. Who takes one without ANSWER sends it back with ANSWER and the same token and padding, as long as no
//! other frame arrived before that could leave, and if it has room for the padding. The gateway probes a device before a second link may take its place,
//! and `fieldgate link probe` finds a line's speed and quality.
//!
//! # 4. Opening a session
//!
//! ```text
//!             start: choose a boot id
//!                       |
//!                       v
//!   CLOSED: send HELLO with ASK at once, and again 1000 ms after each HELLO sent
//!      |                                                   ^
//!      | a HELLO whose echo is my boot id                  | a HELLO with another boot id than the session's,
//!      v                                                   | or the peer is silent or breaks a rule (section 5):
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
//! 4. CLOSED: note boot id, mtu and window as the peer's. If `echo` is my boot id, become OPEN. Still OPEN: nothing in it
//!    matters.
//!
//! A HELLO that is owed or due has my boot id, the noted peer's as echo, and ASK exactly if I am CLOSED.
//!
//! Being OPEN fixes the session: the seed, number 0 and offset 0 on both sides, nothing in flight, no message half received,
//! and as limit of the ordered stream of each side its window. Nothing is carried over from an earlier session. On an idle
//! session nothing is sent: that a peer is gone is noticed with the next message.
//!
//! # 5. Two streams over frames
//!
//! What a side has to say is a stream of octets: each message is a length and so many octets. The length is a *varint*
//! of at most 4096: 7 bits an octet, lowest first, the high bit set on all but the last; `05` is 5, `ac 02` is 300; the
//! shortest form is sent. Messages are not aligned with frames: a frame may hold several, or a piece of one.
//!
//! There is an **ordered** stream in each direction, and from the gateway to a device that wants it an **urgent** one, whose
//! messages overtake. Each has its own offsets and limit. A frame belongs to one of them.
//!
//! **Sending.** A side may have at most 16 numbers in flight: from the oldest that is neither known to have arrived nor
//! taken for lost and sent again, to the newest. Of a stream it sends no octet at or behind the peer's limit. Whenever the line is free,
//! the first of these that is due is sent: HELLO; the answer to a PROBE; ACK, if one is owed that no DATA carries; DATA of
//! the urgent stream; DATA of the ordered stream; ACK. Within a stream, what is to be sent again goes before what is new.
//! Hand a frame to the line when the one before has left: what waits in a queue carries old acks.
//!
//! ```text
//!                         sent                                        arrived
//!    to be sent --------------------> in flight ---------------------------------------> done
//!         ^                               |
//!         |      lost: a newer number     |
//!         +------ arrived, or the timer --+
//! ```
//!
//! **Receiving DATA.** If its payload reaches behind the limit that I gave, drop the frame. Otherwise take the octets that I
//! do not have yet; those behind a gap are kept until it is filled. A side with little room may keep only some, or none
//! that come early: then it drops the whole frame. (Its ack and limit, whose CRC was right, may be taken all the same.) Note
//! the number of each frame that was not dropped, also if all its
//! octets were copies, and owe an ACK. A DATA frame without payload asks for the limit of its stream: the ACK has it.
//!
//! The octets without a gap before them are the next messages. A length above 4096, or one that never fits my window (it
//! must be at most the window less 2), breaks the rules: leave the session. When the application has taken a message, its
//! room is free and the limit rises. A limit never falls. Tell it in each ACK, in DATA with LIMIT when less than half of the
//! window is left to the peer, and owe an ACK when it has risen by half of the window since it was told last. When DATA with
//! LIMIT is lost, tell it again: the peer may wait for it.
//!
//! An ACK that is owed rides on DATA if that is sent anyway and the fields fit, or goes alone. One answers everything
//! before it. `newest` and `before`, and `limit`, may be in any DATA, also when nothing is owed.
//!
//! **Receiving an ack** (`newest` and `before`, in ACK or DATA). If `newest` is none of the numbers in flight, from the oldest
//! to the newest, ignore both: it is old, or was never sent.
//! Frames in flight that it names have arrived. Frames in flight that are older than `newest` and not named are lost: their
//! octets are to be sent again, the lowest first, in new frames with new numbers, cut anew as they fit.
//!
//! **Receiving a limit.** It counts if it is ahead of the one known, modulo 65536 by less than 32768.
//!
//! **Timer.** It runs while frames are in flight, from the moment the first is handed to the line, and starts anew when some
//! arrive. When it runs out, its time is doubled and starts anew, the oldest frame in flight is taken for lost, and only one
//! frame is sent until something arrives or it runs out again. Its time is at first the larger of 1000 ms and 4 ms for each
//! octet of the peer's MTU. Then it follows round trips (RFC 6298): one frame at a time is measured, from its sending to the
//! ack that names it; the time is the smoothed round trip and four times its variation, these four together at least 20 ms; a
//! doubled
//! time stays until the next measurement. It is never less than 60 ms or what two frames of the MTU take, as far as the speed
//! of the line is known, and never more than 8000 ms. A longer time is allowed: a fixed one of 1000 ms makes the simplest
//! sender.
//!
//! **Credit.** When octets of a stream wait that the limit forbids and nothing of that stream is in flight, a DATA frame
//! without payload, whose offset is the limit, is sent each 2000 ms until the limit rises. (The ACK that told it may have been
//! lost.)
//!
//! **Silence.** When no ack names a frame of mine for 30 s, the peer is silent: leave the session. The time is counted from
//! the last such ack or, if nothing was in flight then, from the first frame handed to the line since.
//!
//! # 6. Messages
//!
//! A message is a tag of one octet and fields without padding:
//!
//! ```text
//! to the gateway                                   to the device
//! 00 Attach       device text, largest, urgent,    00 Status        uplink, waiting, time
//!                 memory, traits                   01 Push          message id8, channel, age, body octets
//! 01 Ack          message id8                      02 Subscribed    channel, push text, p256dh octets, auth octets
//! 02 Refuse       message id8, reason              03 Refused       channel, reason
//! 03 Subscribe    channel                          04 Unsubscribed  channel
//! 04 Unsubscribe  channel
//! 05 Rotate       channel
//! 06 Sleep        seconds
//! 07 Awake
//! 08 Ask
//! ```
//!
//! - Numbers and lengths are varints: `channel`, `largest`, `urgent`, `memory` at most 65535, `age` and `seconds` below 2^32,
//!   `time` below 2^64. `traits`, `uplink`, `waiting`, `reason` are one octet.
//! - `octets` and `text` are a length and so many octets; text is UTF-8. `id8` is 8 octets, shown in the order sent.
//! - `device` is 1 to 32 of `A-Z a-z 0-9 . _ -`. `channel` is 1 to 65535; 0 occurs in Refused alone. `p256dh` has 65
//!   octets, `auth` 16. The gateway sends a `push` of at most 512 and a `body` of at most 3993.
//! - `reason`: 00 full, 01 unknown device, 02 unknown channel, 03 not possible.
//! - `uplink`: 00 not connected, and it heals by waiting; 01 connected; 02 a person is needed at the gateway.
//!
//! A message with an unknown tag, reason or uplink, other values than these, or octets missing or left over, is dropped: its
//! length says where the next begins.
//!
//! **Attach** is the first message of a device in each session; a second one is ignored. `largest` is the largest message
//! that it takes, 32 to 4096 and at most its window less 2 (larger values count as these). `urgent` is the window of its
//! urgent stream: its first limit; 0 if it wants none; more than 32767 counts as that. `memory` is how many ids of messages it keeps (see Push). `traits` are
//! bits: 01, it keeps them over its own reset; other bits are sent as 0 and ignored.
//!
//! If it names the device that the gateway expects on this line, the answer is Status (see Ask), and pushes and answers follow;
//! none come before it. If it does not, or if another message comes first, the answer is Refused (channel 0, unknown device),
//! and whatever else the device says in this session is acknowledged by frames but ignored. Only a person can help: a
//! device may start anew each minute.
//!
//! **Push** hands over a message of a channel. `body` is the plaintext. `age` is 0 if the push service does not say (many say
//! it only of what waited), else one more than the seconds since the application server sent it, at the moment it was handed
//! to the link.
//!
//! - A device answers with **Ack** once the message cannot be lost any more: it has reached its final recipient. (ACK
//!   is a frame and says that frames arrived; Ack is a message and says this.) After it the message is not pushed
//!   again, unless the Ack was lost. So the same id may come again, in this session or another: a device keeps the ids
//!   of the last messages that it acknowledged, over power loss if it can, and says how many in `memory`: 16 or more if it
//!   can. A copy goes no further and is acknowledged again.
//! - Or it answers with **Refuse**: *full*, and the message is pushed again after about 5 s, later less often; or *unknown
//!   channel* or *not possible*, and it is not pushed again unless the gateway restarts. A refused id is not kept; if it comes
//!   again, it is a new message.
//! - At most half of `memory` pushes wait for their answer at once, at least 1 and at most 8. Those of a channel come in the
//!   order in which the service accepted them, but what was refused or not answered comes later. Channels that the gateway
//!   counts as urgent use the urgent stream, where the message fits its window less 2: they overtake, between frames of a
//!   message that is on its way.
//! - A push that is not answered within 10 s, or before it expires, may be given up, and is pushed again later. A late
//!   Ack still counts, in a later session too: send it behind Attach. An Ack of an unknown id is ignored.
//! - A message larger than the device's largest (a push adds up to 19 octets to its body) is not sent. It stays with
//!   the service until it expires or the device takes more.
//!
//! **Subscribe** asks for a subscription; the device chooses the channel. The answer is **Subscribed** once the push
//! service agreed, which may take as long as that cannot be reached, so it may come in a later session; or **Refused**
//! (full) when the device has 8 channels or the gateway no room. Asking again is harmless and gets the same answer.
//! Subscribed also comes unasked: for channels set up at the gateway, and with a new `push` when the service lost the
//! old one. `push`, `p256dh` and `auth` are what an application server needs to push: URI, public key, authentication
//! secret. Hand them on confidentially or ignore them.
//!
//! **Rotate** asks for a new subscription in place of one, with new keys. The answer is **Subscribed** with them, or
//! **Refused** (unknown channel). The old one is served for a minute more. Asking again before the answer changes nothing.
//!
//! **Unsubscribe** ends it. The answer is **Unsubscribed** once the service agreed, at once for a channel that does not
//! exist; pushes may come until then. Ask again in the next session if it did not come. Unsubscribed may come unasked.
//!
//! **Ask** is answered by **Status**: whether the gateway is connected, how many pushes wait for this device or for its answer,
//! as far as the gateway knows, and one more while it asks the push service (255 stands for that and more), and the time:
//! milliseconds since 1970 in UTC, 0 if the gateway does not know it. It was right when it was handed to the link. After a
//! Status with another `waiting` than 0, in answer to Attach, Ask or Awake, one with 0 follows as soon as nothing waits.
//!
//! **Sleep** says that the device will not hear for about so many seconds (0: it does not know how long). Once the frame
//! with it was acknowledged by the gateway's link, the device may switch off; the session stays. The gateway then sends
//! nothing but acks, and no timer of the session runs there, until new octets of the device's stream arrive. It keeps a few
//! pushes for it; the rest stays with the service. A device that does not wake within twice the time and a minute more counts
//! as absent. A device that slept and still has its session says **Awake**, which is answered by Status as Ask is; one that
//! lost it opens a new one. Both are given what waits; after Status with `waiting` 0 the device may sleep again.
//!
//! ```text
//!   D Sleep 600      G ACK        ... nothing on the line ...  D Awake  G Status 2  G Push, Push  D Ack, Ack  G Status 0
//! ```
//!
//! # 7. A worked exchange
//!
//! The gateway has boot id 11223344, MTU 64, window 256. The device `d1` has boot id 55667788, MTU 20, window 512, takes 510
//! octets, no urgent ones, and keeps 16 ids, not over its reset. `G` is sent by the gateway, `D` by the device, whose first
//! HELLO is lost. The push has the id 0123456789abcdef, channel 1, age 3 s and the body `hello`. The `00` that begins each
//! direction is not shown, nor what follows: a Status with `waiting` 0.
//!
//! ```text
//! D HELLO ASK           07 19 01 88 77 66 55 01 01 01 02 14 01 06 02 71 3e c6 bd 00     lost
//! G HELLO ASK           07 11 01 44 33 22 11 01 01 01 02 40 01 06 01 03 f8 06 ee 00
//! D HELLO ASK           0c 19 01 88 77 66 55 44 33 22 11 14 01 06 02 5c c3 95 76 00     the gateway is OPEN
//! G HELLO               0c 10 01 44 33 22 11 88 77 66 55 40 01 06 01 a0 f1 c7 88 00     the device is OPEN
//! D DATA 0 Attach       02 28 01 01 02 09 06 02 64 31 fe 03 02 10 05 46 14 06 f5 00
//! G DATA 0 Status, ACK  02 22 01 01 01 01 01 02 04 03 01 01 05 0f d2 40 0a 00     connected, 1 waits, no time
//! D ACK 0               02 38 01 01 07 05 02 58 0c 37 03 00
//! G DATA 1 Push         04 20 01 05 0f 11 01 01 23 45 67 89 ab cd ef b4 36 a9 19 00     its first 10 octets
//! G DATA 2 Push         04 20 02 0f 0d 01 04 05 68 65 6c 6c 6f d3 1a b1 46 00     and the rest
//! D ACK 2, 1, 0         04 38 02 03 07 05 02 39 5a 37 11 00
//! D DATA 1 Ack          04 28 01 0a 0f 09 01 01 23 45 67 89 ab cd ef 95 b7 13 61 00
//! G ACK 1, 0            04 30 01 01 07 14 01 51 4b 52 b9 00
//! ```
//!
//! The second of these before encoding, its checksum being ee06f803:
//!
//! ```text
//! 10 + 01, version 1, boot id, echo 0, MTU 64, window 256, CRC   11 01 44 33 22 11 00 00 00 00 40 00 00 01 03 f8 06 ee
//! ```
//!
//! # 8. What a device needs
//!
//! Room for one frame of its MTU, its window, what it sends, 16 places for frames in flight (a device may have fewer) and
//! the ids that it keeps. With an MTU of 32, a window of 64 and 4 ids, about 330 octets suffice in C. The simplest device has one frame
//! in flight, keeps nothing that comes early, and has a timer of 1000 ms; it works on every line, but waits more.
//!
//! | limit | value | constant in [`limits`](crate::limits) |
//! | --- | --- | --- |
//! | MTU | 20 to 1024 octets | `LINK_MTU_BYTES_MIN`, `_MAX` |
//! | window | 34 to 32767 octets, of the gateway 256 | `LINK_WINDOW_BYTES_MIN`, `_MAX`, `GATEWAY_LINK_RX_BYTES` |
//! | largest message | 32 to 4096 octets | `LINK_MESSAGE_BYTES_MIN`, `_MAX` |
//! | HELLO while closed | each 1000 ms | `HELLO_MS` |
//! | numbers in flight | 16 | `LINK_FLIGHT_FRAMES` |
//! | timer at first | 1000 ms, 4 ms an octet of the MTU | `LINK_RTO_MS_START`, `_PER_MTU_BYTE` |
//! | timer at least, at most | 60 ms, 8000 ms | `LINK_RTO_MS_MIN`, `_MAX` |
//! | four variations at least | 20 ms | `LINK_RTO_MS_VARIATION_MIN` |
//! | asking for credit | each 2000 ms | `LINK_CREDIT_MS` |
//! | silence | 30 s | `LINK_SILENCE_MS` |
//! | message ids kept | 16 or more | `DEVICE_SEEN_COUNT` |
//! | pushes without answer | 8 | `DELIVERY_PER_DEVICE_MAX` |
//! | channels of a device | 8 | `CHANNELS_PER_DEVICE_MAX` |
//!
//! # 9. Versions
//!
//! Version 0 was a draft and is refused. Within version 1 no octet above changes its meaning; frames of new kinds, messages
//! with new tags and new bits of `traits` may be added, and are dropped or ignored by who does not know them. Nothing is sent
//! that a peer must know and may not. What cannot be added in this way is version 2: a side of both versions sends the HELLO of
//! the higher one, and in answer to a HELLO of the lower one that.
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

/// The version that this crate speaks.
pub const VERSION: u8 = 1;
