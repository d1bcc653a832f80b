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

/// Octets of a block of the store: commits start at multiples of it and share none.
pub const STORE_BLOCK_BYTES: usize = 4096;
/// Octets of one key in the store.
pub const STORE_KEY_BYTES_MAX: usize = 1024;
/// Octets of one value in the store.
pub const STORE_VALUE_BYTES_MAX: usize = 8192;
/// Octets of keys and values in one submission to the store.
pub const STORE_BATCH_BYTES_MAX: usize = 64 * 1024;
/// Octets of all facts in the store together.
pub const STORE_LIVE_BYTES_MAX: usize = 1024 * 1024;
/// Size of each of the two regions of a new store, in octets.
pub const STORE_REGION_BYTES_MIN: usize = 512 * 1024;
/// Size up to which a region grows, in octets.
pub const STORE_REGION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long closing the store waits for its last sync, in milliseconds.
pub const STORE_CLOSE_MS_MAX: u64 = 5_000;

const _: () = assert!(STORE_REGION_BYTES_MIN.is_multiple_of(STORE_BLOCK_BYTES));
const _: () = assert!(STORE_REGION_BYTES_MAX.is_multiple_of(STORE_REGION_BYTES_MIN));
const _: () = assert!(STORE_KEY_BYTES_MAX + STORE_VALUE_BYTES_MAX <= STORE_BATCH_BYTES_MAX);
// Each subscription stores at most three URIs and 300 octets of keys and names, each slot one URI.
const _: () = assert!(
    SUBSCRIPTION_COUNT_MAX * (3 * URI_BYTES_MAX + 300) + DELIVERY_SLOT_COUNT * (URI_BYTES_MAX + 100)
        <= STORE_LIVE_BYTES_MAX
);

/// Octets of a configuration file.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// Octets of the path of a Unix socket: what `sockaddr_un` holds, without the final zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Octets of a file with root certificates: the bundles of whole systems have a quarter of it.
pub const CA_FILE_BYTES_MAX: usize = 1024 * 1024;
