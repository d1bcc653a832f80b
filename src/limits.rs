//! Every capacity and interval of the crate, with the relations between them proved at compile time.
//!
//! Names end in their unit: `COUNT`, `BYTES`, `MS`, `S`. A change here needs a measurement.

/// Devices a gateway holds at most.
pub const DEVICE_COUNT_MAX: usize = 64;
/// Subscriptions a gateway holds at most, over all devices.
pub const SUBSCRIPTION_COUNT_MAX: usize = 256;
/// Channels one device may own.
pub const CHANNELS_PER_DEVICE_MAX: usize = 8;

/// Delivery slots that any device may use beyond the one reserved for it.
pub const DELIVERY_SLOT_SHARED_COUNT: usize = 16;
/// Delivery slots in all: one reserved per device and the shared ones.
pub const DELIVERY_SLOT_COUNT: usize = DEVICE_COUNT_MAX + DELIVERY_SLOT_SHARED_COUNT;
/// Delivery slots one device may hold at once.
pub const DELIVERY_PER_DEVICE_MAX: usize = 8;
/// Un-ended promises the gateway allows on its connection.
pub const PROMISED_STREAMS_MAX: usize = 16;

/// Octets of one pushed body as received (RFC 8030 §7.2: a service must accept 4096).
pub const PUSH_BODY_BYTES_MAX: usize = 4096;
/// Octets of plaintext in the largest body: 86 of header, 16 of tag, 1 of delimiter less (RFC 8291 §4).
pub const PLAINTEXT_BYTES_MAX: usize = PUSH_BODY_BYTES_MAX - 86 - 16 - 1;
/// How long a promised body may take to arrive, in milliseconds.
pub const PUSH_BODY_WAIT_MS_MAX: u64 = 10_000;
/// Octets of any URI that the gateway stores.
pub const URI_BYTES_MAX: usize = 512;

/// How long after its promise a message may still be handed to its device, in milliseconds.
pub const HOLD_MS: u64 = 10_000;
/// Message URIs remembered after their slot was freed, so that a late device ack still counts.
pub const FREED_URI_RING: usize = 64;
/// Message URIs remembered as never deliverable.
pub const UNDELIVERABLE_URI_COUNT_MAX: usize = 256;

/// First pause before a connection is tried again, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 500;
/// Longest pause before a connection is tried again, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// Octets of one link message, decoded.
pub const LINK_MESSAGE_BYTES_MAX: usize = 4096;
/// Smallest frame a link must carry, in octets, framing included.
pub const LINK_MTU_BYTES_MIN: usize = 20;
/// Largest frame a link may carry, in octets, framing included.
pub const LINK_MTU_BYTES_MAX: usize = 1024;
/// Message ids a device remembers to drop a copy: at least twice what can be in flight to it.
pub const DEVICE_SEEN_COUNT: usize = 2 * DELIVERY_PER_DEVICE_MAX;

/// Writes to the store that wait for their sync at once.
pub const STORE_QUEUE_COUNT: usize = 64;

const _: () = assert!(DELIVERY_PER_DEVICE_MAX <= DELIVERY_SLOT_SHARED_COUNT + 1);
const _: () = assert!(PROMISED_STREAMS_MAX <= DELIVERY_SLOT_COUNT);
const _: () = assert!(PLAINTEXT_BYTES_MAX == 3993);
// A push adds its tag, message id, channel and length to the plaintext: 1 + 8 + 3 + 2 octets at most.
const _: () = assert!(PLAINTEXT_BYTES_MAX + 14 <= LINK_MESSAGE_BYTES_MAX);
const _: () = assert!(BACKOFF_MS_MIN < BACKOFF_MS_MAX);
const _: () = assert!(DEVICE_SEEN_COUNT >= 2 * DELIVERY_PER_DEVICE_MAX);

// Links.

/// DATA frames one side may have sent and not yet seen acknowledged.
pub const LINK_WINDOW_FRAMES: u8 = 16;
/// DATA frames one side may send before the first frame ack of a session.
pub const LINK_WINDOW_START_FRAMES: u8 = 4;
/// How often a side that is not open sends HELLO, in milliseconds.
pub const HELLO_MS: u64 = 1_000;
/// How often one DATA frame is sent before the peer counts as silent.
pub const FRAME_SEND_COUNT_MAX: u8 = 10;
/// Retransmission timer before the first measured round trip, in milliseconds.
pub const LINK_RTO_MS_START: u32 = 1_000;
/// Shortest retransmission timer, in milliseconds.
pub const LINK_RTO_MS_MIN: u32 = 100;
/// Longest retransmission timer, in milliseconds.
pub const LINK_RTO_MS_MAX: u32 = 3_000;
/// Octets of messages to one device that the gateway's end of a link holds until acknowledged: two of the largest.
pub const GATEWAY_LINK_TX_BYTES: usize = 2 * (LINK_MESSAGE_BYTES_MAX + 2);
/// Octets of the largest message that the gateway accepts from a device.
pub const GATEWAY_LINK_RX_BYTES: usize = 256;
/// Messages that wait for room in one link.
pub const LINK_QUEUE_COUNT: usize = 2 * DELIVERY_PER_DEVICE_MAX;
/// Events of all links that wait for the gateway.
pub const DOWNSTREAM_EVENT_COUNT: usize = 64;
/// First pause before a link's port or socket is opened again, in milliseconds.
pub const LINK_REOPEN_MS_MIN: u64 = 100;
/// Longest pause before a link's port or socket is opened again, in milliseconds.
pub const LINK_REOPEN_MS_MAX: u64 = 2_000;

// Go-back-N over sequence numbers of one octet tells old from new only below half the number space.
const _: () = assert!(LINK_WINDOW_FRAMES < 128 && LINK_WINDOW_START_FRAMES <= LINK_WINDOW_FRAMES);
const _: () = assert!(LINK_RTO_MS_MIN <= LINK_RTO_MS_START && LINK_RTO_MS_START <= LINK_RTO_MS_MAX);
const _: () = assert!(FRAME_SEND_COUNT_MAX >= 2);
// Message lengths and limits travel in two octets.
const _: () = assert!(LINK_MESSAGE_BYTES_MAX <= u16::MAX as usize && LINK_MTU_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(LINK_REOPEN_MS_MIN < LINK_REOPEN_MS_MAX);
