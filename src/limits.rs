//! Every capacity and interval of the crate, with the relations between them proved at compile time.
//!
//! Names end in their unit: `COUNT`, `BYTES`, `MS`, `S`. A change here needs a measurement.

/// Devices a gateway holds at most.
pub const DEVICE_COUNT_MAX: usize = 64;
/// Subscriptions a gateway holds at most, over all devices.
pub const SUBSCRIPTION_COUNT_MAX: usize = 256;
/// Subscriptions beyond those that are being replaced at once: the new ones, and the old ones until they are gone.
pub const ROTATION_COUNT_MAX: usize = 16;
/// How long a subscription that was replaced is still read, in milliseconds: its application servers hear of the new one.
pub const ROTATION_GRACE_MS: u64 = 60_000;
/// Subscribe requests of unknown outcome beyond which the gateway moves to a new set, which ends what they made.
pub const ORPHAN_COUNT_MAX: u8 = 8;
/// How long a gateway that was reset still answers who asked for it, in milliseconds.
pub const RESET_LINGER_MS: u64 = 1_000;
/// Sets that are removed as a whole at once; beyond it their subscriptions are removed one by one.
pub const DEPARTURE_COUNT_MAX: usize = 8;
/// Channels one device may own.
pub const CHANNELS_PER_DEVICE_MAX: usize = 8;

/// Delivery slots that any device may use beyond the one reserved for it.
pub const DELIVERY_SLOT_SHARED_COUNT: usize = 16;
/// Delivery slots in all: one reserved per device and the shared ones.
pub const DELIVERY_SLOT_COUNT: usize = DEVICE_COUNT_MAX + DELIVERY_SLOT_SHARED_COUNT;
/// Messages beyond the delivery slots whose device ack is yet to be passed on; they hold no content.
pub const ACKED_COUNT_MAX: usize = 64;
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
/// How long a service may take at least to answer a DELETE before the acknowledgement is written to flash, in
/// milliseconds; four times its smoothed time if that is longer.
pub const ACK_UNANSWERED_MS_MIN: u64 = 2_000;
/// Message URIs remembered after their slot was freed, so that a late device ack still counts.
pub const FREED_URI_RING: usize = 64;
/// Message URIs remembered as never deliverable.
pub const UNDELIVERABLE_URI_COUNT_MAX: usize = 256;

/// First pause before a connection is tried again, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 500;
/// Longest pause before a lost connection is tried again for the first time, in milliseconds: a thousand gateways that lost
/// one service in the same moment come back over seconds.
pub const BACKOFF_MS_FIRST_MAX: u64 = 4_500;
/// Longest pause before a connection is tried again, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// Octets of one link message, decoded.
pub const LINK_MESSAGE_BYTES_MAX: usize = 4096;
/// Smallest largest message that a device may state.
pub const LINK_MESSAGE_BYTES_MIN: usize = 32;
/// Smallest window of an end of a link, in octets of its stream.
pub const LINK_WINDOW_BYTES_MIN: usize = LINK_MESSAGE_BYTES_MIN + 2;
/// Smallest window of a gateway, so that every Attach fits, in octets of its stream.
pub const GATEWAY_LINK_WINDOW_BYTES_MIN: usize = 64;
/// Largest window of an end of a link.
pub const LINK_WINDOW_BYTES_MAX: usize = 32_767;
/// Smallest frame a link must carry, in octets, framing included.
pub const LINK_MTU_BYTES_MIN: usize = 20;
/// Largest frame a link may carry, in octets, framing included.
pub const LINK_MTU_BYTES_MAX: usize = 1024;
/// Message ids a device remembers to drop a copy: at least twice what can be in flight to it.
pub const DEVICE_SEEN_COUNT: usize = 2 * DELIVERY_PER_DEVICE_MAX;

/// A clock that reads less was never set: the end of 2023, in seconds since 1970.
pub const CLOCK_SET_UNIX_S: u64 = 1_700_000_000;

/// Messages that are kept for a sleeping device, unless the configuration says otherwise.
pub const HOLD_FOR_SLEEP_DEFAULT: u8 = 2;
/// Messages that may be kept for a sleeping device.
pub const HOLD_FOR_SLEEP_MAX: u8 = DELIVERY_PER_DEVICE_MAX as u8;
/// How long beyond twice the time that it stated a device may sleep before it counts as absent, in milliseconds.
pub const SLEEP_GRACE_MS: u64 = 60_000;

/// Writes to the store that wait for their sync at once.
pub const STORE_QUEUE_COUNT: usize = 64;

/// Largest time to live, in seconds: what a larger number counts as (RFC 8030 §5.2).
pub const TTL_S_MAX: u64 = 1 << 31;
/// Longest wait that a `Retry-After` is believed, in seconds.
pub const RETRY_AFTER_S_MAX: u64 = 86_400;
/// Characters of a topic (RFC 8030 §5.4).
pub const TOPIC_CHARS_MAX: usize = 32;

const _: () = assert!(DELIVERY_PER_DEVICE_MAX <= DELIVERY_SLOT_SHARED_COUNT + 1);
const _: () = assert!(PROMISED_STREAMS_MAX <= DELIVERY_SLOT_COUNT);
const _: () = assert!(PLAINTEXT_BYTES_MAX == 3993);
// A push adds its tag, message id, channel, age and length to the plaintext: 1 + 8 + 3 + 5 + 2 octets at most.
const _: () = assert!(PLAINTEXT_BYTES_MAX + 19 <= LINK_MESSAGE_BYTES_MAX);
const _: () = assert!(BACKOFF_MS_MIN < BACKOFF_MS_FIRST_MAX && BACKOFF_MS_FIRST_MAX < BACKOFF_MS_MAX);
const _: () = assert!(DEVICE_SEEN_COUNT >= 2 * DELIVERY_PER_DEVICE_MAX);

/// The shortest time a message may be held, however little of its lifetime the service says is left, in milliseconds.
pub const HOLD_MS_MIN: u64 = 2_000;
/// Requests with `wait=0` that may be open at once: a service may keep one open while it waits for acknowledgements, and
/// devices that are slow with those must not keep others from being asked for.
pub const FETCH_COUNT_MAX: usize = 32;
/// Requests with `wait=0` that may be open at once for one subscription: one, and one that takes its place.
pub const FETCH_PER_SUBSCRIPTION_MAX: usize = 2;
/// Messages that a device may still hold when its stored ones are asked for: the service pushes these again, and with
/// one of them the link stays busy while the answer is on its way.
pub const FETCH_HELD_COUNT_MAX: usize = 1;
/// Pause between two fetches of one subscription, in milliseconds.
pub const FETCH_PAUSE_MS: u64 = 1_000;
/// First and longest pause before messages are asked for again that did not arrive, or that their device had no room
/// for, in milliseconds.
pub const REFUSED_PAUSE_MS_MIN: u64 = 5_000;
/// See [`REFUSED_PAUSE_MS_MIN`].
pub const REFUSED_PAUSE_MS_MAX: u64 = 900_000;
/// How long after a change of the wanted urgency another one may follow that wants less, in milliseconds.
pub const URGENCY_PAUSE_MS: u64 = 300_000;
/// How long a monitoring request may stay open in whose place there is another one, in milliseconds.
pub const MONITOR_OUTDATED_MS_MAX: u64 = 10_000;
/// Displacements within [`DISPLACED_WINDOW_MS`] after which two gateways are taken to share one identity.
pub const DISPLACED_COUNT_MAX: usize = 3;
/// See [`DISPLACED_COUNT_MAX`], in milliseconds.
pub const DISPLACED_WINDOW_MS: u64 = 600_000;
/// Displacements that follow one another sooner count as one, in milliseconds.
pub const DISPLACED_TOGETHER_MS: u64 = 1_000;
/// How long a gateway that was displaced leaves the field to the other one, in milliseconds.
pub const DISPLACED_PAUSE_MS: u64 = 900_000;
/// Messages of which it is remembered that they came, so that each counts once against floods.
pub const FLOOD_SEEN_COUNT: usize = 512;
/// Slices in which the messages of a minute are counted.
pub const FLOOD_SLICE_COUNT: usize = 12;
/// How long such a slice is, in milliseconds.
pub const FLOOD_SLICE_MS: u64 = 5_000;
/// Channels of which it is remembered that too many messages came; the oldest is forgotten first.
pub const FLOOD_STOPPED_COUNT_MAX: usize = SUBSCRIPTION_COUNT_MAX;
/// Messages a minute that a device may be said to take at most.
pub const FLOOD_PER_MINUTE_MAX: u32 = 60_000;
/// First and longest pause before an announcement is made again, in milliseconds.
pub const ANNOUNCE_BACKOFF_MS_MIN: u64 = 1_000;
/// See [`ANNOUNCE_BACKOFF_MS_MIN`].
pub const ANNOUNCE_BACKOFF_MS_MAX: u64 = 3_600_000;
/// Channels of which it is known, on flash too, what an application server has: those with a subscription, and as many
/// that have ended and wait for it to accept that.
pub const ANNOUNCED_COUNT_MAX: usize = 2 * SUBSCRIPTION_COUNT_MAX;
/// How long an announcement may take from the first attempt to connect to the answer, in milliseconds.
pub const ANNOUNCE_WAIT_MS_MAX: u64 = 60_000;
/// Octets of the head of an answer to an announcement.
pub const ANNOUNCE_HEAD_BYTES_MAX: usize = 8_192;
/// Fields of the head of an answer to an announcement.
pub const ANNOUNCE_FIELD_COUNT_MAX: usize = 64;
/// A connection or monitor that lived this long was good: the next pause starts small again, in milliseconds.
pub const STABLE_MS: u64 = 10_000;
/// First and longest pause before a subscribe request is tried again, in milliseconds.
pub const SUBSCRIBE_BACKOFF_MS_MIN: u64 = 2_000;
/// Pause before a subscribe request is repeated whose outcome is unknown, in milliseconds: it may have made an orphan.
pub const SUBSCRIBE_UNKNOWN_MS: u64 = 60_000;
/// A subscription that lived this long was good: its next failure is the first one again, in milliseconds.
pub const SUBSCRIPTION_STABLE_MS: u64 = 600_000;
/// See [`SUBSCRIBE_BACKOFF_MS_MIN`].
pub const SUBSCRIBE_BACKOFF_MS_MAX: u64 = 6 * 3_600_000;
/// First and longest pause before a DELETE is tried again, in milliseconds.
pub const DELETE_BACKOFF_MS_MIN: u64 = 1_000;
/// See [`DELETE_BACKOFF_MS_MIN`].
pub const DELETE_BACKOFF_MS_MAX: u64 = 300_000;
/// Pause after a failed write to the store, in milliseconds.
pub const PERSIST_RETRY_MS: u64 = 5_000;
/// How far the last known time is from the one on flash before it is written again, in seconds: each write wears flash.
pub const TIME_RECORD_INTERVAL_S: u64 = 24 * 3_600;
/// How far it is when the process ends in order, in seconds.
pub const TIME_RECORD_STOP_S: u64 = 3_600;
/// Pause between two writes of the last known time, however it jumps, in milliseconds.
pub const TIME_RECORD_PAUSE_MS: u64 = 3_600_000;
/// How much later than the last one a `Date` is before it is looked at again, in seconds.
pub const DATE_INTERVAL_S: u64 = 60;

const _: () = assert!(TIME_RECORD_STOP_S < TIME_RECORD_INTERVAL_S && DATE_INTERVAL_S <= TIME_RECORD_STOP_S);
/// Octets of one stored value.
pub const RECORD_BYTES_MAX: usize = 2_560;

const _: () = assert!(4 * URI_BYTES_MAX + 128 <= RECORD_BYTES_MAX);
const _: () = assert!(FLOOD_SLICE_COUNT as u64 * FLOOD_SLICE_MS == 60_000);
const _: () = assert!(HOLD_MS_MIN <= HOLD_MS);
const _: () = assert!(ALTERNATIVE_COUNT_MAX <= ALTERNATIVE_FAILED_COUNT_MAX);
// What is written when half of its time is over is not held up by the pause.
const _: () = assert!(ALTERNATIVE_RECORD_PAUSE_MS <= ALTERNATIVE_RECORD_S_MIN * 1_000 / 2);
const _: () = assert!(ALTERNATIVE_COUNT_MAX * (URI_BYTES_MAX + 18) + 24 <= RECORD_BYTES_MAX);
const _: () = assert!(ALTERNATIVE_RETRY_MS_MIN < ALTERNATIVE_RETRY_MS_MAX && MOVE_PAUSE_MS_MIN < MOVE_PAUSE_MS_MAX);

/// Addresses of one push service that are tried at most, one after another.
pub const CANDIDATE_COUNT_MAX: usize = 8;
/// How long one attempt to connect may take: TCP, TLS and the HTTP/2 preface together, in milliseconds.
pub const CONNECT_WAIT_MS_MAX: u64 = 10_000;
/// How long the name of a push service may take to resolve, in milliseconds.
pub const RESOLVE_WAIT_MS_MAX: u64 = 10_000;
/// How long an answer to a request may take, in milliseconds.
pub const REQUEST_WAIT_MS_MAX: u64 = 30_000;
/// How long sent octets may stay without TCP acknowledgement before the connection counts as dead, in milliseconds.
pub const TCP_USER_TIMEOUT_MS: u64 = 30_000;
/// How long a connection may be idle before it is tested, at first and at most, in milliseconds (RFC 8030 §3: middleboxes
/// forget).
pub const KEEP_ALIVE_MS: u64 = 240_000;
/// See [`KEEP_ALIVE_MS`].
pub const KEEP_ALIVE_MS_MAX: u64 = 900_000;
/// The same on the port of Web Push, where they are expected to remember for 7,440 s (RFC 8030 §3, RFC 5382 REQ-5).
pub const KEEP_ALIVE_WEBPUSH_MS: u64 = 1_800_000;
/// See [`KEEP_ALIVE_WEBPUSH_MS`].
pub const KEEP_ALIVE_WEBPUSH_MS_MAX: u64 = 3_600_000;
/// The shortest such interval, on a path that forgets soon, in milliseconds.
pub const KEEP_ALIVE_MS_MIN: u64 = 60_000;
/// Answers in a row after which a longer interval is tried.
pub const KEEP_ALIVE_PROOF_COUNT: u32 = 3;
/// How long an interval that a path did not survive is not tried again, in seconds.
pub const KEEP_ALIVE_CEILING_S: u64 = 86_400;
/// The port of https.
pub const HTTPS_PORT: u16 = 443;
/// The port of Web Push (RFC 8030 §9.3).
pub const WEBPUSH_PORT: u16 = 1001;
/// How long the answer to such a test may take, in milliseconds.
pub const KEEP_ALIVE_WAIT_MS_MAX: u64 = 20_000;
/// Octets of a credential for a push service.
pub const CREDENTIAL_BYTES_MAX: usize = 4_096;
/// Names of metered interfaces in the configuration.
pub const METERED_INTERFACE_COUNT_MAX: usize = 16;
/// Octets of the name of a network interface: IFNAMSIZ without the final zero.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// How often power and network are looked at, in seconds.
pub const SURROUNDINGS_LOOK_S: u64 = 60;
/// Octets of the name of a push service in the configuration.
pub const SERVICE_NAME_BYTES_MAX: usize = 32;
/// Connections that the configuration may ask for: one a push service, and one a device that is to have its own.
pub const UPSTREAM_PLACED_COUNT_MAX: usize = 4;
/// Origins that subscribe requests were sent on to, and that have subscriptions.
pub const UPSTREAM_MOVED_COUNT_MAX: usize = 4;
/// Origins that connections are kept to at once.
pub const UPSTREAM_COUNT_MAX: usize = UPSTREAM_PLACED_COUNT_MAX + UPSTREAM_MOVED_COUNT_MAX;
/// Subscribe requests in a row that are sent on to another place (RFC 8030 §7.1).
pub const REDIRECT_COUNT_MAX: u8 = 3;
/// How long a connection that was replaced is still read, at least and at most, in milliseconds.
pub const DRAIN_MS_MIN: u64 = 1_000;
/// See [`DRAIN_MS_MIN`].
pub const DRAIN_MS_MAX: u64 = 30_000;
/// Age at which a connection is replaced, in seconds: some counters of the HTTP/2 library only grow.
pub const CONNECTION_AGE_S_MAX: u64 = 86_400;
/// Streams after which a connection is replaced: their numbers run out after 2^30 (RFC 9113 §5.1.1).
pub const CONNECTION_STREAMS_MAX: u32 = 1 << 29;
/// Refused promises after which a connection is replaced: small frames of them count against the library's budget.
pub const CONNECTION_REFUSALS_MAX: u32 = 2_000;
/// Shortest time between two replacements of a connection that were not asked for by the service, in milliseconds.
pub const REPLACE_PAUSE_MS: u64 = 60_000;
/// How long other requests wait behind one for stored messages that has the last of the service's streams, in
/// milliseconds; then the connection is replaced.
pub const LAST_STREAM_MS_MAX: u64 = 10_000;
/// Octets of an `Alt-Svc` field, all its lines together; a longer one says nothing.
pub const ALT_SVC_BYTES_MAX: usize = 2_048;
/// Octets of an ALTSVC frame that is looked at: the longest field, the longest origin, and two of its length.
pub const ALTSVC_FRAME_BYTES_MAX: usize = 2 + URI_BYTES_MAX + ALT_SVC_BYTES_MAX;
/// Alternative services of one origin that are remembered, the preferred ones.
pub const ALTERNATIVE_COUNT_MAX: usize = 4;
/// Alternative services of one origin that are remembered as failed, announced or not.
pub const ALTERNATIVE_FAILED_COUNT_MAX: usize = 8;
/// How long an alternative service may be connected to when nothing is said, in seconds (RFC 7838 §3.1).
pub const ALTERNATIVE_S: u64 = 86_400;
/// First and longest pause before an alternative service that failed is tried again, in milliseconds.
pub const ALTERNATIVE_RETRY_MS_MIN: u64 = 300_000;
/// See [`ALTERNATIVE_RETRY_MS_MIN`].
pub const ALTERNATIVE_RETRY_MS_MAX: u64 = 6 * 3_600_000;
/// Shortest time for which an alternative service is fresh that is worth a write to flash, in seconds.
pub const ALTERNATIVE_RECORD_S_MIN: u64 = 2 * 3_600;
/// How much longer than the service says an alternative service may be fresh on flash, in seconds: clocks and ages of
/// answers are not exact, and each write wears flash.
pub const ALTERNATIVE_RECORD_SLACK_S: u64 = 60;
/// Shortest time between two writes of the alternative services of one origin, in milliseconds; a removal may come between.
pub const ALTERNATIVE_RECORD_PAUSE_MS: u64 = 3_600_000;
/// First and longest pause between two moves to an alternative service, in milliseconds: places that name each other
/// must not keep a gateway moving.
pub const MOVE_PAUSE_MS_MIN: u64 = 60_000;
/// See [`MOVE_PAUSE_MS_MIN`].
pub const MOVE_PAUSE_MS_MAX: u64 = 3_600_000;
/// Addresses of the machine that are remembered, so that one that is only refreshed is no change.
pub const PATH_ADDRESS_COUNT_MAX: usize = 64;
/// Octets that the kernel may tell of the network at once.
pub const PATH_MESSAGE_BYTES_MAX: usize = 8_192;
/// Shortest time between two changes of the network that wake what waits for it, in milliseconds.
pub const PATH_WAKE_MS_MIN: u64 = 1_000;
/// Events of the push service that wait for the gateway's loop.
pub const UPSTREAM_EVENT_COUNT: usize = 64;
/// How long a connection may take to end in order, in milliseconds.
pub const CLOSE_WAIT_MS_MAX: u64 = 1_000;
/// Octets of one list of header fields from a peer.
pub const HEADER_LIST_BYTES_MAX: u32 = 8_192;

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
/// Octets a day that a gateway may write to flash before a person is told, unless configured: 256 commits.
pub const FLASH_BYTES_PER_DAY: u32 = 1024 * 1024;
/// Least that may be configured: a commit.
pub const FLASH_BYTES_PER_DAY_MIN: u32 = STORE_BLOCK_BYTES as u32;
/// Share of it at which a person is told, in percent.
pub const FLASH_WARNING_PERCENT: u64 = 80;
/// The day over which it is counted, in milliseconds.
pub const FLASH_DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Memory over which a passphrase is made a key for an export, in KiB.
pub const EXPORT_MEMORY_KIB: u32 = 64 * 1024;
/// Passes over that memory.
pub const EXPORT_PASSES: u32 = 3;
/// Largest such memory that an export may ask for when it is read.
pub const EXPORT_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most KiB that it may ask for in all its passes together: seconds of a small board.
pub const EXPORT_WORK_KIB_MAX: u64 = 1024 * 1024;
/// Characters of the shortest passphrase that an export is made with.
pub const PASSPHRASE_CHARACTERS_MIN: usize = 12;
/// Octets of the longest passphrase.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;
/// How long closing the store waits for its last sync, in milliseconds.
pub const STORE_CLOSE_MS_MAX: u64 = 5_000;

const _: () = assert!(EXPORT_MEMORY_KIB <= EXPORT_MEMORY_KIB_MAX);
const _: () = assert!(EXPORT_MEMORY_KIB as u64 * EXPORT_PASSES as u64 <= EXPORT_WORK_KIB_MAX);
const _: () = assert!(STORE_REGION_BYTES_MIN.is_multiple_of(STORE_BLOCK_BYTES));
const _: () = assert!(STORE_REGION_BYTES_MAX.is_multiple_of(STORE_REGION_BYTES_MIN));
const _: () = assert!(STORE_KEY_BYTES_MAX + STORE_VALUE_BYTES_MAX <= STORE_BATCH_BYTES_MAX);
// What is to be forgotten for want of room has no subscription.
const _: () = assert!(ANNOUNCED_COUNT_MAX >= SUBSCRIPTION_COUNT_MAX + ROTATION_COUNT_MAX);
// Each subscription stores at most three URIs and 400 octets of keys and names, each acknowledgement that is owed one URI,
// what was announced of each channel its name twice, each configured service its name and a value.
const _: () = assert!(
    (SUBSCRIPTION_COUNT_MAX + ROTATION_COUNT_MAX) * (3 * URI_BYTES_MAX + 400)
        + (DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX + FREED_URI_RING) * (URI_BYTES_MAX + 100)
        + ANNOUNCED_COUNT_MAX * 200
        + UPSTREAM_PLACED_COUNT_MAX * (URI_BYTES_MAX + RECORD_BYTES_MAX)
        <= STORE_LIVE_BYTES_MAX
);

/// Requests on the control socket that are served at once.
pub const CONTROL_CONNECTION_COUNT_MAX: usize = 8;
/// Octets of one request on the control socket.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4_096;
/// How long a request on the control socket may take to arrive and its answer to leave, in milliseconds.
pub const CONTROL_WAIT_MS_MAX: u64 = 5_000;
/// Octets of one answer on the control socket that a command reads.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1 << 20;

/// Octets of the line in which the service manager shows what the gateway does: it takes 4096 in one notification.
pub const STATUS_BYTES_MAX: usize = 1_024;

// Links.

/// Numbers of DATA frames that one side may have in flight: an ack names the newest and the 16 before it.
pub const LINK_FLIGHT_FRAMES: usize = 16;
/// Pieces of a stream that arrived before what is in front of them, and are kept.
pub const LINK_PIECES_AHEAD: usize = 4;
/// How often a side that is not open sends HELLO, in milliseconds.
pub const HELLO_MS: u64 = 1_000;
/// How long nothing that was sent may arrive before the peer counts as silent, in milliseconds.
pub const LINK_SILENCE_MS: u64 = 30_000;
/// Retransmission timer before the first measured round trip, in milliseconds.
pub const LINK_RTO_MS_START: u32 = 1_000;
/// The same for each octet of the MTU, if that is more: two of the largest frames and their acks at 9600 baud.
pub const LINK_RTO_MS_START_PER_MTU_BYTE: u32 = 4;
/// Shortest retransmission timer, in milliseconds.
pub const LINK_RTO_MS_MIN: u32 = 60;
/// What four variations of the round trip count as at least, in milliseconds: the latency of a USB adapter comes and goes.
pub const LINK_RTO_MS_VARIATION_MIN: u32 = 20;
/// Longest retransmission timer, in milliseconds.
pub const LINK_RTO_MS_MAX: u32 = 8_000;
/// How often a side that waits for credit alone asks for it, in milliseconds.
pub const LINK_CREDIT_MS: u64 = 2_000;
/// Octets of messages to one device that the gateway's end of a link holds until acknowledged: two of the largest.
pub const GATEWAY_LINK_TX_BYTES: usize = 2 * (LINK_MESSAGE_BYTES_MAX + 2);
/// Octets of urgent messages to one device that the gateway's end of a link holds until acknowledged.
pub const GATEWAY_LINK_URGENT_BYTES: usize = LINK_MESSAGE_BYTES_MAX + 2;
/// Octets of the stream of a device that the gateway has room for: five of the largest messages that a device sends.
pub const GATEWAY_LINK_RX_BYTES: usize = 256;
/// Octets of the largest frame that the gateway accepts from a device.
pub const GATEWAY_LINK_MTU_BYTES: usize = 128;
/// How long a link that is there may take to show it when a second one claims its device, in milliseconds.
pub const LINK_CLAIM_MS: u64 = 2_000;
/// How long the line of a device may be busy with what was written when the next frame follows, in milliseconds: so long
/// what is urgent waits at most behind others, and so late a timer may be without a gap on the line.
pub const LINE_AHEAD_MS: u64 = 8;
/// How long a line that stands still is left alone before it is looked at again, in milliseconds.
pub const LINE_STILL_MS: u64 = 250;
/// Messages that wait for room in one link.
pub const LINK_QUEUE_COUNT: usize = 2 * DELIVERY_PER_DEVICE_MAX;
/// Events of all links that wait for the gateway.
pub const DOWNSTREAM_EVENT_COUNT: usize = 64;
/// First pause before a link's port or socket is opened again, in milliseconds.
pub const LINK_REOPEN_MS_MIN: u64 = 100;
/// Longest pause before a link's port or socket is opened again, in milliseconds.
pub const LINK_REOPEN_MS_MAX: u64 = 2_000;

// Whatever is newest, an ack can name everything in flight.
const _: () = assert!(LINK_FLIGHT_FRAMES <= 1 + u16::BITS as usize);
const _: () = assert!(LINK_RTO_MS_MIN <= LINK_RTO_MS_START && LINK_RTO_MS_START <= LINK_RTO_MS_MAX);
const _: () = assert!(LINK_RTO_MS_START_PER_MTU_BYTE * LINK_MTU_BYTES_MAX as u32 <= LINK_RTO_MS_MAX);
// A frame is sent at least three times before its peer counts as silent.
const _: () = assert!(LINK_SILENCE_MS > 3 * LINK_RTO_MS_MAX as u64);
const _: () =
    assert!(GATEWAY_LINK_WINDOW_BYTES_MIN <= GATEWAY_LINK_RX_BYTES && GATEWAY_LINK_RX_BYTES <= LINK_WINDOW_BYTES_MAX);
const _: () = assert!(LINK_MTU_BYTES_MIN <= GATEWAY_LINK_MTU_BYTES && GATEWAY_LINK_MTU_BYTES <= LINK_MTU_BYTES_MAX);
// The length of a message takes two octets, and offsets tell old from new below half of their space.
const _: () = assert!(LINK_MESSAGE_BYTES_MAX < 1 << 14 && LINK_MESSAGE_BYTES_MAX + 2 <= LINK_WINDOW_BYTES_MAX);
const _: () = assert!(LINK_WINDOW_BYTES_MAX < 1 << 15);
const _: () = assert!(LINK_MTU_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(LINK_REOPEN_MS_MIN < LINK_REOPEN_MS_MAX);

/// Octets of a configuration file.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// Octets of the path of a Unix socket: what `sockaddr_un` holds, without the final zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Octets of a file that holds one push subscription.
pub const SUBSCRIPTION_FILE_BYTES_MAX: usize = 16_384;

/// Octets of a file with root certificates: the bundles of whole systems have a quarter of it.
pub const CA_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Octets of a file with revocation lists: some 20,000 certificates.
pub const CRL_FILE_BYTES_MAX: usize = 1024 * 1024;

/// Octets of a token by which an application server identifies itself.
pub const VAPID_TOKEN_BYTES_MAX: usize = 2_048;
/// How long such a token may be valid from now, in seconds (RFC 8292 §2).
pub const VAPID_LIFE_S_MAX: u64 = 86_400;
/// How long a token of the sender is valid, in seconds. It is renewed after half of that.
pub const VAPID_LIFE_S: u64 = 43_200;
/// Octets of the URI at which the sender says it is reached.
pub const VAPID_CONTACT_BYTES_MAX: usize = 256;
/// Octets of the file with the sender's signing key.
pub const VAPID_KEY_FILE_BYTES_MAX: usize = 8_192;

const _: () = assert!(VAPID_LIFE_S <= VAPID_LIFE_S_MAX);

// The push service.

/// Subscriptions the push service holds at most.
pub const SERVICE_SUBSCRIPTION_COUNT_MAX: usize = 16_384;
/// Subscriptions of one set; a subscribe request beyond them gets a new set.
pub const SERVICE_SET_MEMBER_COUNT_MAX: usize = 1_024;
/// Messages the push service holds at most.
pub const SERVICE_MESSAGE_COUNT_MAX: usize = 65_536;
/// Octets of all messages the push service holds, fields included.
pub const SERVICE_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Messages one subscription may have waiting.
pub const SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX: usize = 4_096;
/// Receipt subscriptions the push service holds at most.
pub const SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX: usize = 16_384;
/// Messages and receipts of one receipt subscription; a message beyond them gets a new one.
pub const SERVICE_RECEIPTS_PER_SUBSCRIPTION_MAX: usize = 4_096;
/// Receipts the push service holds at most; the oldest gives way.
pub const SERVICE_RECEIPT_COUNT_MAX: usize = 65_536;
/// Receipts of one receipt subscription that are pushed and may not have arrived.
pub const SERVICE_RECEIPTS_UNCONFIRMED_MAX: usize = 256;
/// Receipts that are pushed on one connection and may not have arrived.
pub const SERVICE_RECEIPTS_TOLD_MAX: usize = 1_024;
/// How long a subscription lives that nobody ever asked for messages, in seconds.
pub const SERVICE_FRESH_S: u64 = 86_400;
/// How long a subscription, an empty set or a receipt subscription lives that nobody uses, in seconds.
pub const SERVICE_UNUSED_S: u64 = 90 * 86_400;
/// Messages that one push resource takes within a minute.
pub const SERVICE_SENDS_PER_MINUTE: u32 = 60_000;
/// Messages of one subscription that are promised and not yet acknowledged.
pub const SERVICE_IN_FLIGHT_PER_SUBSCRIPTION: usize = 8;
/// First wait for an acknowledgement before a message is pushed again, in milliseconds.
pub const SERVICE_RETRY_MS_MIN: u64 = 30_000;
/// Longest wait for an acknowledgement before a message is pushed again, in milliseconds.
pub const SERVICE_RETRY_MS_MAX: u64 = 900_000;
/// First pause of a subscription after a refused push, in milliseconds.
pub const SERVICE_PAUSE_MS_MIN: u64 = 3_600_000;
/// Longest pause of a subscription after refused pushes, in milliseconds.
pub const SERVICE_PAUSE_MS_MAX: u64 = 86_400_000;
/// How long a `wait=0` request stays open after its last push for acknowledgements that release more, in milliseconds.
pub const SERVICE_DRAIN_MS_MAX: u64 = 30_000;
/// How long a message with a time to live of zero may wait for its turn on the connection, in milliseconds.
pub const SERVICE_TTL_ZERO_MS: u64 = 1_000;
/// Timers handled in one turn.
pub const SERVICE_TIMERS_PER_TURN: usize = 256;
/// Promises of one connection whose message is not yet written.
pub const SERVICE_PROMISES_UNENDED_MAX: usize = 32;
/// Written messages of one connection whose refusal, should it come late, is still noticed.
pub const SERVICE_LATE_REFUSALS_COUNT: usize = 256;
/// Octets written to a connection in one go: one full TLS record.
pub const SERVICE_WRITE_BYTES: usize = 16_384;
/// How long a promised message may wait for the window of its receiver, in milliseconds.
pub const SERVICE_PUSH_MS_MAX: u64 = 60_000;

/// How long clients may use the other address of the push service, in seconds, after it was last announced.
pub const SERVICE_ALTERNATIVE_S: u64 = 86_400;
/// Connections the push service serves at once.
pub const SERVICE_CONNECTION_COUNT_MAX: usize = 1_024;
/// TLS sessions that may be resumed, over all clients.
pub const SERVICE_TLS_SESSION_COUNT_MAX: usize = 1_024;
/// How long a TLS session may be resumed, in seconds: what the clients are told.
pub const SERVICE_TLS_SESSION_S_MAX: u64 = 86_400;
/// Concurrent requests of one connection, monitors included.
pub const SERVICE_STREAM_COUNT_MAX: u32 = 100;
/// The same where every subscription of a client has to be in its set: one request that monitors, and one more.
pub const SERVICE_STREAM_COUNT_WITH_SETS: u32 = 2;
/// Receipt subscriptions that one connection may have made for it, unless another number is configured.
pub const SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION: u32 = 1_024;
/// The same, the most that may be configured.
pub const SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION_MAX: u32 = 1_000_000;
/// Attempts to push a message that may be configured at most.
pub const SERVICE_ATTEMPTS_MAX: u32 = 1_000;
/// Refused messages in a row that may be configured at most.
pub const SERVICE_REFUSED_COUNT_MAX: u32 = 1_000_000;
/// Messages a second for one user agent that may be configured at most.
pub const SERVICE_PUSHES_PER_SECOND_MAX: u32 = 1_000;
/// How long messages may be configured to wait for others, in seconds.
pub const SERVICE_BATCH_S_MAX: u32 = 3_600;
/// How long subscriptions that nobody uses may be configured to live, in days.
pub const SERVICE_LIFE_DAYS_MAX: u32 = 3_650;
/// Octets of a message that the operator of a push service may allow at most.
pub const SERVICE_BODY_BYTES_MAX: usize = 65_536;
/// Octets of a request's header fields, as HTTP/2 counts them.
pub const SERVICE_HEADER_LIST_BYTES_MAX: u32 = 16_384;
/// Framing overhead that small DATA frames of one connection may pile up: a message in 4096 frames of one octet passes.
pub const SERVICE_DATA_FRAME_BUDGET_BYTES: usize = 4 * 256 * PUSH_BODY_BYTES_MAX;
/// Requests a peer may reset before they were looked at.
pub const SERVICE_RESETS_UNSEEN_MAX: usize = 100;
/// Streams the service may have to reset for errors of the peer, in the life of a connection.
pub const SERVICE_ERROR_RESETS_MAX: usize = 1_024;
/// How long a request's content may take to arrive, in milliseconds.
pub const SERVICE_BODY_MS_MAX: u64 = 10_000;
/// How long TLS and HTTP/2 handshakes may take, in milliseconds.
pub const SERVICE_HANDSHAKE_MS_MAX: u64 = 10_000;
/// How long a connection without any open request is kept, in milliseconds.
pub const SERVICE_IDLE_MS: u64 = 120_000;
/// Silence of a monitoring peer after which the service asks whether it is there, in milliseconds.
pub const SERVICE_PING_MS: u64 = 7_800_000;
/// PING and SETTINGS frames that a client may send within [`SERVICE_ASKED_MS`]; beyond them its connection ends.
pub const SERVICE_ASKED_COUNT_MAX: u32 = 1_000;
/// How long PING and SETTINGS frames are counted, in milliseconds.
pub const SERVICE_ASKED_MS: u64 = 10_000;
/// How long a client that is sent away may take to read why, in milliseconds.
pub const SERVICE_GOODBYE_MS: u64 = 1_000;
/// How long the answer to that may take, in milliseconds.
pub const SERVICE_PONG_MS: u64 = 30_000;
/// How long connections may take to end when the service stops, in milliseconds.
pub const SERVICE_STOP_MS_MAX: u64 = 5_000;
/// Tokens of application servers whose signature need not be verified again; the one that was used least recently gives way.
pub const SERVICE_VERIFIED_TOKEN_COUNT_MAX: usize = 1_024;
/// Requests of one peer for what is not there, within [`SERVICE_GUESS_MS`], whose answer does not wait.
pub const SERVICE_GUESS_COUNT_MAX: u32 = 1_000;
/// How long such requests are counted, in milliseconds.
pub const SERVICE_GUESS_MS: u64 = 600_000;
/// How long the answer to any more of them waits, in milliseconds.
pub const SERVICE_GUESS_DELAY_MS: u64 = 1_000;
/// Peers of which such requests are counted.
pub const SERVICE_GUESS_PEER_COUNT: usize = 1_024;
/// What a full service asks senders to wait, in seconds.
pub const SERVICE_RETRY_AFTER_S: u64 = 10;

/// Writes to the service's store that wait for a commit at once; requests beyond them wait.
pub const SERVICE_STORE_QUEUE_COUNT: usize = 1_024;
/// From when on a commit of the service's store is slow, in milliseconds, so that it pays to have fewer.
pub const SERVICE_STORE_SLOW_MS: u64 = 5;
/// The part of a slow commit's time that passes before the next one.
pub const SERVICE_STORE_GATHER_PART: u32 = 4;
/// The most that passes before the next commit, in milliseconds.
pub const SERVICE_STORE_GATHER_MS_MAX: u64 = 10;
/// How long the service's store waits before it tries a disk again that refused, in milliseconds.
pub const SERVICE_STORE_RETRY_MS: u64 = 1_000;
/// Octets of memory the service's store may use for pages.
pub const SERVICE_STORE_CACHE_BYTES: usize = 4 << 20;

/// Validity of the service's own certificate authority, in days.
pub const SERVICE_CA_DAYS: u64 = 25 * 365;
/// Validity of the service's certificate, in days; it is replaced after two thirds.
pub const SERVICE_CERTIFICATE_DAYS: u64 = 90;

const _: () = assert!(SERVICE_IN_FLIGHT_PER_SUBSCRIPTION <= SERVICE_PROMISES_UNENDED_MAX);
const _: () = assert!(PUSH_BODY_BYTES_MAX <= SERVICE_BODY_BYTES_MAX);
const _: () = assert!(SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX <= SERVICE_MESSAGE_COUNT_MAX);
const _: () = assert!(SERVICE_RETRY_MS_MIN < SERVICE_RETRY_MS_MAX && SERVICE_PAUSE_MS_MIN < SERVICE_PAUSE_MS_MAX);

/// Messages that the demonstration sends at most.
pub const DEMO_MESSAGE_COUNT_MAX: u32 = 100_000;
/// Devices that the demonstration has at most.
pub const DEMO_DEVICE_COUNT_MAX: u32 = 16;
/// Pause between two messages of the demonstration, in milliseconds.
pub const DEMO_INTERVAL_MS: u64 = 20;
/// How often the demonstration looks whether a message is gone at the push service, in milliseconds.
pub const DEMO_LOOK_MS: u64 = 2;
/// How long the demonstration waits for anything to happen, in milliseconds.
pub const DEMO_WAIT_MS_MAX: u64 = 30_000;
/// Frames of a hundred that the demonstration's second link loses in each direction.
pub const DEMO_LOSS_PERCENT: u8 = 5;
/// Received messages of the demonstration that wait to be shown.
pub const DEMO_EVENT_COUNT: usize = 4_096;

// The simulated device.

/// Octets of messages to the gateway that a simulated device holds until acknowledged.
pub const SIMULATE_TX_BYTES: usize = 1024;
/// Octets of each stream that a simulated device has room for: two of the largest messages.
pub const SIMULATE_WINDOW_BYTES: usize = 2 * (LINK_MESSAGE_BYTES_MAX + 2);
/// Message ids that a simulated device remembers.
pub const SIMULATE_SEEN_COUNT: usize = 256;
/// Size at which the journal of a simulated device is cut to its newest half, in octets.
pub const SIMULATE_JOURNAL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a simulated device that ends waits for its last acks to be taken, in milliseconds.
pub const SIMULATE_LINGER_MS_MAX: u64 = 1_000;
/// Octets on their way in one direction of a simulated line: what every frame in flight takes, and more.
pub const SIMULATE_LINE_BYTES_MAX: usize = 64 * 1024;
/// How much later a frame may arrive on a simulated line, in milliseconds.
pub const SIMULATE_DELAY_MS_MAX: u64 = 60_000;
/// Slowest speed of a simulated line, in baud.
pub const SIMULATE_PACE_BAUD_MIN: u32 = 300;
/// Fastest speed of a simulated line, in baud.
pub const SIMULATE_PACE_BAUD_MAX: u32 = 4_000_000;
/// How long a simulated application may take for one message, in milliseconds.
pub const SIMULATE_SLOW_MS_MAX: u64 = 3_600_000;
/// How long a simulated device may sleep, or live between two resets, in seconds.
pub const SIMULATE_LIFE_S_MAX: u64 = 7 * 86_400;
/// How long nothing may have been heard before a simulated device sleeps that was not told that nothing waits, in
/// milliseconds.
pub const SIMULATE_QUIET_MS: u64 = 2_000;

// Everything that one side may have in flight is on the line at once.
const _: () = assert!(2 * LINK_FLIGHT_FRAMES * LINK_MTU_BYTES_MAX <= SIMULATE_LINE_BYTES_MAX);

// The tools for a link: `fieldgate link`.

/// Line speeds at which a serial link is probed when none is named, in baud, the fastest first.
pub const LINK_PROBE_BAUDS: [u32; 9] = [1_000_000, 921_600, 460_800, 230_400, 115_200, 57_600, 38_400, 19_200, 9_600];
/// How often the speeds are gone through: opening a port may have reset the device.
pub const LINK_PROBE_ROUND_COUNT: usize = 2;
/// Short probes at one speed before the next one is tried.
pub const LINK_PROBE_TRY_COUNT: u32 = 3;
/// The same when there is no other speed: opening the port may have reset the device.
pub const LINK_PROBE_ONLY_TRY_COUNT: u32 = 10;
/// How long the answer to a short probe may take, in milliseconds.
pub const LINK_PROBE_TRY_MS: u64 = 300;
/// How long the answer to a probe may take beyond its time on the line, in milliseconds.
pub const LINK_PROBE_WAIT_MS: u64 = 1_000;
/// Probes of one size, unless another number is asked for.
pub const LINK_PROBE_COUNT_DEFAULT: u32 = 100;
/// Probes of one size at most.
pub const LINK_PROBE_COUNT_MAX: u32 = 10_000;
/// Probes of one size that are lost one after another before the rest of this size is given up.
pub const LINK_PROBE_LOST_COUNT_MAX: u32 = 10;
/// Tokens that are tried for a probe of the wanted length: the encoding makes a few in a hundred an octet shorter.
pub const LINK_PROBE_TOKEN_TRY_COUNT: usize = 16;
/// How long a device may take to connect to a socket that is probed, in seconds, unless another time is asked for.
pub const LINK_PROBE_CONNECT_S_DEFAULT: u64 = 30;
/// How long a device may be waited for, in seconds.
pub const LINK_PROBE_CONNECT_S_MAX: u64 = 3_600;

/// Octets without a delimiter that are shown as one line of what is no frame.
pub const LINK_MONITOR_FOREIGN_BYTES_MAX: usize = 2 * LINK_MTU_BYTES_MAX;
/// Boot ids of one side with which a frame is tried: the last one, and the one before it.
pub const LINK_MONITOR_BOOT_COUNT: usize = 2;
/// Octets of one stream behind a gap that are kept until it is filled.
pub const LINK_MONITOR_AHEAD_BYTES_MAX: usize = LINK_WINDOW_BYTES_MAX;
/// Pieces of one stream behind a gap after which it is not filled any more: what is lost is sent again before what is new.
pub const LINK_MONITOR_AHEAD_COUNT_MAX: usize = 2 * LINK_FLIGHT_FRAMES;
/// Chunks of standard input that wait to be shown.
pub const LINK_MONITOR_INPUT_COUNT: usize = 16;

const _: () = assert!(LINK_PROBE_TRY_MS <= LINK_PROBE_WAIT_MS && LINK_PROBE_LOST_COUNT_MAX <= LINK_PROBE_COUNT_DEFAULT);
const _: () = assert!(LINK_PROBE_CONNECT_S_DEFAULT <= LINK_PROBE_CONNECT_S_MAX);

const _: () = assert!(SIMULATE_SEEN_COUNT >= DEVICE_SEEN_COUNT);
// A body may double in a journal, as hexadecimal digits: half a journal holds every id that is remembered.
const _: () = assert!(SIMULATE_SEEN_COUNT * (2 * LINK_MESSAGE_BYTES_MAX + 256) <= SIMULATE_JOURNAL_BYTES_MAX / 2);

/// Octets of the path of a serial port.
pub const LINK_PATH_BYTES_MAX: usize = 255;

/// Octets of a refused request that the service reads before it answers.
pub const SERVICE_DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// How often a refused message is asked for that its service does not offer again.
pub const MISSED_ASK_COUNT_MAX: u32 = 6;
/// How long after a message was refused its service may still count it as delivered: once it was asked for after that and
/// did not come, it is gone. In milliseconds.
pub const MISSED_MS_MAX: u64 = 300_000;

/// How often the service looks whether its certificate is to be renewed, in seconds.
pub const SERVICE_CERTIFICATE_LOOK_S: u64 = 3_600;

/// Requests with `wait=0` on which a message is pushed without being acknowledged, before later messages go first: the
/// receiver asks for what is stored and cannot use this, and nothing behind it must wait for its end.
pub const SERVICE_DRAINS_IN_VAIN: u32 = 4;

/// Octets of a message's content type, and of its content encoding: the receiver takes few octets of fields.
pub const SERVICE_DESCRIPTION_BYTES_MAX: usize = 256;
