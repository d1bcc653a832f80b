/* fieldgate_link.h: the device's side of the fieldgate link protocol, version 1, in C99. One header, no allocation.
 *
 * In one file of the firmware, and with the same macros wherever it is included:
 *
 *     #define FIELDGATE_LINK_IMPLEMENTATION
 *     #include "fieldgate_link.h"
 *
 * Sizes are macros. A session takes `sizeof(struct fieldgate_link)` octets, and `poll` wants a frame's room for what it
 * sends. On a 32 bit machine (checked by `make sizes` in test):
 *
 *     |                             | tiny | middle | large |
 *     | --------------------------- | ---- | ------ | ----- |
 *     | FIELDGATE_LINK_MTU          |   32 |     64 |   256 | largest frame in octets, 20 to 1024
 *     | FIELDGATE_LINK_WINDOW       |   64 |    600 |  4098 | room for the ordered stream, 34 to 32767
 *     | FIELDGATE_LINK_URGENT       |    0 |      0 |   256 | room for the urgent stream; 0: none is wanted
 *     | FIELDGATE_LINK_TX           |   32 |     64 |   128 | room for what is said, a power of 2 from 32 to 1024
 *     | FIELDGATE_LINK_FLIGHT       |    2 |      8 |    16 | frames in flight, a power of 2 up to 16
 *     | FIELDGATE_LINK_RANGES       |    1 |      4 |     4 | pieces that are kept behind gaps
 *     | FIELDGATE_LINK_IDS          |    4 |     16 |    16 | ids kept of acknowledged messages
 *     | FIELDGATE_LINK_PROBE        |    4 |     56 |   248 | octets of a probe that is answered, at most MTU - 8
 *     | --------------------------- | ---- | ------ | ----- |
 *     | struct fieldgate_link       |   292 |   1144 |  5412 | octets of RAM
 *     | frame that `poll` writes    |   32 |     64 |   256 | octets of RAM of the caller
 *
 * A device name of n octets wants FIELDGATE_LINK_TX to be at least n + 14.
 *
 * `memcpy` and `memmove` come from <string.h>; with FIELDGATE_LINK_FREESTANDING defined it has its own. The session is
 * not locked: call it from one context, and let interrupts fill a buffer that the main loop feeds. */
#ifndef FIELDGATE_LINK_H
#define FIELDGATE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef FIELDGATE_LINK_MTU
#define FIELDGATE_LINK_MTU 64
#endif
#ifndef FIELDGATE_LINK_WINDOW
#define FIELDGATE_LINK_WINDOW 600
#endif
#ifndef FIELDGATE_LINK_URGENT
#define FIELDGATE_LINK_URGENT 0
#endif
#ifndef FIELDGATE_LINK_TX
#define FIELDGATE_LINK_TX 64
#endif
#ifndef FIELDGATE_LINK_FLIGHT
#define FIELDGATE_LINK_FLIGHT 8
#endif
#ifndef FIELDGATE_LINK_RANGES
#define FIELDGATE_LINK_RANGES 4
#endif
#ifndef FIELDGATE_LINK_IDS
#define FIELDGATE_LINK_IDS 16
#endif
#ifndef FIELDGATE_LINK_PROBE
#define FIELDGATE_LINK_PROBE (FIELDGATE_LINK_MTU - 8)
#endif

/* The gateway lets at most half of the ids wait for an answer, and at most 8. */
#define FIELDGATE_LINK_WAITING                                                                                          \
    (FIELDGATE_LINK_IDS < 4 ? 1 : FIELDGATE_LINK_IDS > 16 ? 8 : FIELDGATE_LINK_IDS / 2)
#define FIELDGATE_LINK_STREAMS (FIELDGATE_LINK_URGENT > 0 ? 2 : 1)

#define FIELDGATE_LINK_NEVER UINT32_MAX

enum fieldgate_link_reason {
    FIELDGATE_LINK_FULL = 0,
    FIELDGATE_LINK_UNKNOWN_DEVICE = 1,
    FIELDGATE_LINK_UNKNOWN_CHANNEL = 2,
    FIELDGATE_LINK_NOT_POSSIBLE = 3
};

enum fieldgate_link_uplink {
    FIELDGATE_LINK_NOT_CONNECTED = 0,
    FIELDGATE_LINK_CONNECTED = 1,
    FIELDGATE_LINK_PERSON_NEEDED = 2
};

enum fieldgate_link_why {
    FIELDGATE_LINK_PEER_STARTED, /* the gateway is another one, or it has started anew */
    FIELDGATE_LINK_PEER_SILENT,
    FIELDGATE_LINK_PEER_BROKE_RULES,
    FIELDGATE_LINK_RESTARTED /* `fieldgate_link_restart`, or the minute after unknown device is over */
};

enum fieldgate_link_event_kind {
    FIELDGATE_LINK_UP,
    FIELDGATE_LINK_DOWN,         /* why; what the gateway had not taken is forgotten, except acknowledgements */
    FIELDGATE_LINK_PUSH,         /* id, channel, age, body, len, urgent: answer it by ack or refuse, now or later */
    FIELDGATE_LINK_SUBSCRIBED,   /* channel, body and len (the URI), p256dh, auth: hand on confidentially or ignore */
    FIELDGATE_LINK_REFUSED,      /* channel, reason; channel 0: the gateway expects another device here */
    FIELDGATE_LINK_UNSUBSCRIBED, /* channel */
    FIELDGATE_LINK_STATUS,       /* uplink, waiting, time */
    FIELDGATE_LINK_OTHER_VERSION /* version: a person has to update the gateway or this device */
};

/* Pointers hold until the handler returns. */
struct fieldgate_link_event {
    enum fieldgate_link_event_kind kind;
    uint16_t channel;
    bool urgent;
    uint8_t why, reason, uplink, waiting, version;
    uint32_t age; /* 0: unknown; else one more than the seconds since it was sent */
    uint64_t time; /* milliseconds since 1970 in UTC, 0: unknown */
    const uint8_t *id; /* 8 octets */
    const uint8_t *body;
    size_t len;
    const uint8_t *p256dh; /* 65 octets */
    const uint8_t *auth;   /* 16 octets */
};

/* May call whatever says something (ack, refuse, subscribe, ...), but neither feed nor poll. */
typedef void fieldgate_link_handler(void *context, const struct fieldgate_link_event *event);

/* What follows is private down to the functions. */

struct fieldgate_link_range {
    uint16_t start, end; /* counted from the first octet that is kept */
};

struct fieldgate_link_rx {
    uint16_t base; /* offset of the first octet that is kept */
    uint16_t told; /* limit that the gateway knows */
    uint16_t have; /* octets without a gap from base on */
    struct fieldgate_link_range early[FIELDGATE_LINK_RANGES];
    uint8_t early_count;
};

struct fieldgate_link_frame {
    uint16_t offset, len; /* len: FGL_SETTLED when it arrived or was taken for lost */
};

struct fieldgate_link_id {
    uint8_t octets[8];
    uint8_t state;
};

struct fieldgate_link {
    fieldgate_link_handler *handler;
    void *context;
    const char *device;
    uint32_t boot, peer, seed; /* seed: CRC behind the seed of the session */
    uint32_t hello_at, timer_at, silent_at, credit_at, measured_at;

    uint16_t peer_mtu;
    uint16_t tx_base, tx_next, tx_end, tx_limit; /* offsets: not done from, new from, said up to, not beyond */
    uint16_t timer_ms, round_trip_8, variation_4; /* in eighths and quarters of a millisecond */
    uint16_t before;
    uint16_t frame_len, encoded_len, probe_len;

    struct fieldgate_link_rx rx[FIELDGATE_LINK_STREAMS];
    struct fieldgate_link_frame flight[FIELDGATE_LINK_FLIGHT]; /* of numbers oldest to next, by their low bits */

    uint8_t newest;
    uint8_t oldest, next;
    uint8_t measured;
    uint8_t single; /* after the timer ran out: 1, one frame may be sent; 2, it was */
    uint8_t owe_limit; /* bit of each stream whose limit is to be told */
    uint8_t block, block_left; /* of the encoding: length octet, octets left */
    uint8_t ids_count;
    uint8_t traits;

    bool delimiter_due : 1, hello_due : 1, probe_due : 1, ack_due : 1;
    bool open : 1, anew : 1, heard : 1, unanswered : 1, measuring : 1, wants_credit : 1, damaged : 1;

    uint8_t lost[FIELDGATE_LINK_TX / 8]; /* a bit for each octet that is to be sent again */
    struct fieldgate_link_id ids[FIELDGATE_LINK_IDS + FIELDGATE_LINK_WAITING]; /* the oldest first */
    uint8_t tx[FIELDGATE_LINK_TX];
    uint8_t frame[FIELDGATE_LINK_MTU - 2];
    uint8_t ordered[FIELDGATE_LINK_WINDOW];
#if FIELDGATE_LINK_URGENT > 0
    uint8_t urgent[FIELDGATE_LINK_URGENT];
#endif
    uint8_t probe[FIELDGATE_LINK_PROBE + 1]; /* token and padding */
};

/* Once, before all else. `device` stays the caller's and must outlive the session. `boot_id` is new at each start and
 * not 0. `keeps_ids`: the ids of acknowledged messages are restored after a reset, by `fieldgate_link_remember`.
 * False if the name is not 1 to 32 of A-Z a-z 0-9 . _ - or does not fit FIELDGATE_LINK_TX. */
bool fieldgate_link_start(struct fieldgate_link *link, const char *device, uint32_t boot_id, bool keeps_ids,
                          fieldgate_link_handler *handler, void *context);

/* An id that was acknowledged before the reset, the oldest first. */
void fieldgate_link_remember(struct fieldgate_link *link, const uint8_t id[8]);

/* The connection is a new one. Not needed on a serial line. */
void fieldgate_link_reconnected(struct fieldgate_link *link);

/* Octets that came on the line, cut anyhow. Calls the handler. */
void fieldgate_link_feed(struct fieldgate_link *link, const uint8_t *octets, size_t n, uint32_t now_ms);

/* The next octets for the line, 0 if there are none now. Call it when the octets of the call before have left. */
size_t fieldgate_link_poll(struct fieldgate_link *link, uint32_t now_ms, uint8_t out[FIELDGATE_LINK_MTU]);

/* Milliseconds until poll has something to do, if nothing is fed or said before; FIELDGATE_LINK_NEVER if it has not. */
uint32_t fieldgate_link_poll_timeout(const struct fieldgate_link *link, uint32_t now_ms);

/* The message cannot be lost any more. Works at any time: an acknowledgement outlives the session. */
void fieldgate_link_ack(struct fieldgate_link *link, const uint8_t id[8]);

/* These are false when there is no session, or no room for what is to be said: try again later. */
bool fieldgate_link_refuse(struct fieldgate_link *link, const uint8_t id[8], enum fieldgate_link_reason reason);
bool fieldgate_link_subscribe(struct fieldgate_link *link, uint16_t channel);
bool fieldgate_link_unsubscribe(struct fieldgate_link *link, uint16_t channel);
bool fieldgate_link_rotate(struct fieldgate_link *link, uint16_t channel);
bool fieldgate_link_sleep(struct fieldgate_link *link, uint32_t seconds);
bool fieldgate_link_awake(struct fieldgate_link *link);
bool fieldgate_link_ask(struct fieldgate_link *link);

bool fieldgate_link_is_open(const struct fieldgate_link *link);

/* Everything said has arrived, and nothing is to be sent. After `fieldgate_link_sleep`: it may be switched off. */
bool fieldgate_link_is_settled(const struct fieldgate_link *link);

/* Leaves the session at the next poll and opens a new one. */
void fieldgate_link_restart(struct fieldgate_link *link, uint32_t now_ms);

#endif

#ifdef FIELDGATE_LINK_IMPLEMENTATION

#define FGL_CHECK(name, condition) typedef char fgl_check_##name[(condition) ? 1 : -1]
FGL_CHECK(mtu, FIELDGATE_LINK_MTU >= 20 && FIELDGATE_LINK_MTU <= 1024);
FGL_CHECK(window, FIELDGATE_LINK_WINDOW >= 34 && FIELDGATE_LINK_WINDOW <= 32767);
FGL_CHECK(urgent, FIELDGATE_LINK_URGENT == 0 || (FIELDGATE_LINK_URGENT >= 34 && FIELDGATE_LINK_URGENT <= 32767));
FGL_CHECK(tx, FIELDGATE_LINK_TX >= 32 && FIELDGATE_LINK_TX <= 1024 && (FIELDGATE_LINK_TX & (FIELDGATE_LINK_TX - 1)) == 0);
FGL_CHECK(flight, FIELDGATE_LINK_FLIGHT >= 1 && FIELDGATE_LINK_FLIGHT <= 16 &&
                      (FIELDGATE_LINK_FLIGHT & (FIELDGATE_LINK_FLIGHT - 1)) == 0);
FGL_CHECK(ranges, FIELDGATE_LINK_RANGES >= 1 && FIELDGATE_LINK_RANGES <= 16);
FGL_CHECK(ids, FIELDGATE_LINK_IDS >= 1 && FIELDGATE_LINK_IDS <= 200);
FGL_CHECK(probe, FIELDGATE_LINK_PROBE >= 0 && FIELDGATE_LINK_PROBE <= FIELDGATE_LINK_MTU - 8);

enum {
    FGL_VERSION = 1,
    FGL_HELLO = 0x10,
    FGL_DATA = 0x20,
    FGL_ACK = 0x30,
    FGL_PROBE = 0x40,
    FGL_KIND = 0xf0,
    FGL_FROM_DEVICE = 0x08,
    FGL_HELLO_ASKS = 0x01,
    FGL_IS_URGENT = 0x01,
    FGL_HAS_ACK = 0x02,
    FGL_HAS_LIMIT = 0x04,
    FGL_IS_ANSWER = 0x01,

    FGL_HELLO_LEN = 18,
    FGL_ACK_LEN = 10,
    FGL_DATA_LEN_MIN = 8,
    FGL_PROBE_LEN_MIN = 6,
    FGL_MTU_MIN = 20,
    FGL_GATEWAY_WINDOW_MIN = 64,
    FGL_WINDOW_MAX = 32767,
    FGL_MESSAGE_MAX = 4096,

    FGL_HELLO_MS = 1000,
    FGL_TIMER_MS_START = 1000,
    FGL_TIMER_MS_MIN = 60,
    FGL_TIMER_MS_MAX = 8000,
    FGL_VARIATION_MS_MIN = 20,
    FGL_CREDIT_MS = 2000,
    FGL_SILENCE_MS = 30000,
    FGL_ANEW_MS = 60000,

    FGL_ORDERED = 0,
    FGL_URGENT = 1,
    FGL_SETTLED = 0xffff,
    FGL_ACK_OCTETS = 10,   /* Ack with its length */
    FGL_REFUSE_OCTETS = 11 /* Refuse with its length, the longest answer */
};

enum fgl_to_gateway {
    FGL_TAG_ATTACH,
    FGL_TAG_ACK,
    FGL_TAG_REFUSE,
    FGL_TAG_SUBSCRIBE,
    FGL_TAG_UNSUBSCRIBE,
    FGL_TAG_ROTATE,
    FGL_TAG_SLEEP,
    FGL_TAG_AWAKE,
    FGL_TAG_ASK
};

enum fgl_to_device { FGL_TAG_STATUS, FGL_TAG_PUSH, FGL_TAG_SUBSCRIBED, FGL_TAG_REFUSED, FGL_TAG_UNSUBSCRIBED };

enum fgl_id_state {
    FGL_HANDED,   /* with the application, which has not answered */
    FGL_ACK_OWED, /* answered, but there was no room to say so */
    FGL_ACKED
};

#ifdef FIELDGATE_LINK_FREESTANDING
static void fgl_move(void *to, const void *from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if (t < f) {
        while (n-- > 0) *t++ = *f++;
    } else {
        while (n-- > 0) t[n] = f[n];
    }
}
#define fgl_copy fgl_move
#else
#include <string.h>
#define fgl_move memmove
#define fgl_copy memcpy
#endif

static bool fgl_same_id(const uint8_t *a, const uint8_t *b) {
    uint8_t different = 0;
    for (size_t i = 0; i < 8; i++) different |= a[i] ^ b[i];
    return different == 0;
}

static uint16_t fgl_get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t fgl_get32(const uint8_t *p) { return fgl_get16(p) | (uint32_t)fgl_get16(p + 2) << 16; }

/* How far `a` is ahead of `b`, as offsets and numbers go round. */
static int16_t fgl_ahead(uint16_t a, uint16_t b) { return (int16_t)(uint16_t)(a - b); }
static int8_t fgl_newer(uint8_t a, uint8_t b) { return (int8_t)(uint8_t)(a - b); }

static uint32_t fgl_left(uint32_t now, uint32_t since, uint32_t span) {
    uint32_t gone = now - since;
    return gone >= span ? 0 : span - gone;
}

/* ---- Checksum: CRC-32C ---- */

static uint32_t fgl_crc_octet(uint32_t crc, uint8_t octet) {
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    crc ^= octet;
    crc = crc >> 4 ^ table[crc & 15];
    return crc >> 4 ^ table[crc & 15];
}

static uint32_t fgl_crc(uint32_t crc, const uint8_t *octets, size_t n) {
    for (size_t i = 0; i < n; i++) crc = fgl_crc_octet(crc, octets[i]);
    return crc;
}

static uint32_t fgl_crc32(uint32_t crc, uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) crc = fgl_crc_octet(crc, (uint8_t)(value >> shift));
    return crc;
}

#define FGL_CRC_START 0xffffffffu

static bool fgl_crc_fits(uint32_t crc, const uint8_t *frame, size_t n) {
    return ~fgl_crc(crc, frame, n - 4) == fgl_get32(frame + n - 4);
}

/* ---- A frame that is sent: encoded while it is written ---- */

struct fgl_writer {
    uint8_t *out;
    size_t len;
    size_t block_at;
    uint8_t block; /* 0: the next octet begins one */
    uint32_t crc;
};

static void fgl_put_encoded(struct fgl_writer *w, uint8_t octet) {
    if (w->block == 0) {
        w->block_at = w->len++;
        w->block = 1;
    }
    if (octet != 0) {
        w->out[w->len++] = octet;
        w->block++;
    }
    w->out[w->block_at] = w->block;
    if (octet == 0) {
        w->block_at = w->len++;
        w->block = 1;
        w->out[w->block_at] = 1;
    } else if (w->block == 0xff) {
        w->block = 0; /* what may be left out if nothing follows */
    }
}

static void fgl_put(struct fgl_writer *w, uint8_t octet) {
    w->crc = fgl_crc_octet(w->crc, octet);
    fgl_put_encoded(w, octet);
}

static void fgl_put16(struct fgl_writer *w, uint16_t value) {
    fgl_put(w, (uint8_t)value);
    fgl_put(w, (uint8_t)(value >> 8));
}

static void fgl_put32(struct fgl_writer *w, uint32_t value) {
    fgl_put16(w, (uint16_t)value);
    fgl_put16(w, (uint16_t)(value >> 16));
}

static size_t fgl_finish(struct fgl_writer *w) {
    fgl_put32(w, ~w->crc);
    w->out[w->len++] = 0;
    return w->len;
}

static struct fgl_writer fgl_begin(uint8_t *out, uint32_t crc, uint8_t kind) {
    struct fgl_writer w = {out, 0, 0, 0, crc};
    fgl_put(&w, kind | FGL_FROM_DEVICE);
    return w;
}

/* Octets of the largest frame before encoding. */
static uint16_t fgl_raw_max(uint16_t mtu) {
    uint16_t n = mtu - 2;
    while (n + (n + 253) / 254 + 1 > mtu) n--;
    return n;
}

/* ---- Identifiers of messages ---- */

static uint8_t fgl_find_id(const struct fieldgate_link *l, const uint8_t *id) {
    uint8_t i = 0;
    while (i < l->ids_count && !fgl_same_id(l->ids[i].octets, id)) i++;
    return i;
}

static uint8_t fgl_count_ids(const struct fieldgate_link *l, uint8_t state) {
    uint8_t count = 0;
    for (uint8_t i = 0; i < l->ids_count; i++) {
        if (l->ids[i].state == state) count++;
    }
    return count;
}

static void fgl_forget_id(struct fieldgate_link *l, uint8_t i) {
    l->ids_count--;
    fgl_move(&l->ids[i], &l->ids[i + 1], (size_t)(l->ids_count - i) * sizeof l->ids[0]);
}

/* The oldest of these states. At most FIELDGATE_LINK_WAITING are handed, so a full table has others. */
static uint8_t fgl_oldest_id(const struct fieldgate_link *l, uint8_t state) {
    uint8_t i = 0;
    while (i < l->ids_count && l->ids[i].state != state) i++;
    return i;
}

/* As the newest. */
static void fgl_keep_id(struct fieldgate_link *l, const uint8_t *id, uint8_t state) {
    struct fieldgate_link_id kept;
    fgl_copy(kept.octets, id, 8);
    kept.state = state;
    uint8_t known = fgl_find_id(l, id);
    if (known == l->ids_count && known == FIELDGATE_LINK_IDS + FIELDGATE_LINK_WAITING) {
        known = fgl_oldest_id(l, FGL_ACKED);
        if (known == l->ids_count) known = fgl_oldest_id(l, FGL_ACK_OWED);
    }
    if (known < l->ids_count) fgl_forget_id(l, known);
    l->ids[l->ids_count++] = kept;
}

/* ---- What is said: the ordered stream to the gateway ---- */

static uint16_t fgl_tx_room(const struct fieldgate_link *l) {
    return l->open ? FIELDGATE_LINK_TX - (uint16_t)(l->tx_end - l->tx_base) : 0;
}

static uint8_t *fgl_tx_at(struct fieldgate_link *l, uint16_t offset) { return &l->tx[offset & (FIELDGATE_LINK_TX - 1)]; }

/* All messages of a device have lengths of one octet. */
static bool fgl_say(struct fieldgate_link *l, const uint8_t *message, uint8_t n) {
    if (fgl_tx_room(l) < n + 1) return false;
    *fgl_tx_at(l, l->tx_end++) = n;
    for (uint8_t i = 0; i < n; i++) *fgl_tx_at(l, l->tx_end++) = message[i];
    return true;
}

static uint8_t fgl_put_varint(uint8_t *out, uint32_t value) {
    uint8_t n = 0;
    for (; value > 0x7f; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

static bool fgl_say_number(struct fieldgate_link *l, uint8_t tag, uint32_t number) {
    uint8_t message[6];
    message[0] = tag;
    return fgl_say(l, message, 1 + fgl_put_varint(message + 1, number));
}

static bool fgl_say_channel(struct fieldgate_link *l, uint8_t tag, uint16_t channel) {
    return channel != 0 && fgl_say_number(l, tag, channel);
}

static void fgl_say_acks(struct fieldgate_link *l) {
    uint8_t message[9];
    message[0] = FGL_TAG_ACK;
    for (uint8_t i = 0; i < l->ids_count && fgl_tx_room(l) >= FGL_ACK_OCTETS; i++) {
        if (l->ids[i].state != FGL_ACK_OWED) continue;
        fgl_copy(message + 1, l->ids[i].octets, 8);
        fgl_say(l, message, sizeof message);
        l->ids[i].state = FGL_ACKED;
    }
}

static bool fgl_say_refuse(struct fieldgate_link *l, const uint8_t *id, uint8_t reason) {
    uint8_t message[10];
    message[0] = FGL_TAG_REFUSE;
    fgl_copy(message + 1, id, 8);
    message[9] = reason;
    return fgl_say(l, message, sizeof message);
}

static uint8_t fgl_attach(const struct fieldgate_link *l, uint8_t message[48]) {
    uint8_t n = 2;
    uint32_t largest = FIELDGATE_LINK_WINDOW - 2;
    for (const char *p = l->device; *p != 0; p++) message[n++] = (uint8_t)*p;
    message[0] = FGL_TAG_ATTACH;
    message[1] = n - 2;
    n += fgl_put_varint(message + n, largest > FGL_MESSAGE_MAX ? FGL_MESSAGE_MAX : largest);
    n += fgl_put_varint(message + n, FIELDGATE_LINK_URGENT);
    n += fgl_put_varint(message + n, FIELDGATE_LINK_IDS);
    message[n++] = l->traits;
    return n;
}

/* ---- Frames in flight ---- */

static uint8_t fgl_lost_bit(uint16_t offset) { return (uint8_t)(1 << (offset & 7)); }

static uint8_t *fgl_lost_at(struct fieldgate_link *l, uint16_t offset) {
    return &l->lost[(offset & (FIELDGATE_LINK_TX - 1)) / 8];
}

static bool fgl_is_lost(const struct fieldgate_link *l, uint16_t offset) {
    return (l->lost[(offset & (FIELDGATE_LINK_TX - 1)) / 8] & fgl_lost_bit(offset)) != 0;
}

/* The first octet that is to be sent again, or tx_next. */
static uint16_t fgl_first_lost(const struct fieldgate_link *l) {
    uint16_t offset = l->tx_base;
    while (offset != l->tx_next && !fgl_is_lost(l, offset)) offset++;
    return offset;
}

static struct fieldgate_link_frame *fgl_flight(struct fieldgate_link *l, uint8_t number) {
    return &l->flight[number & (FIELDGATE_LINK_FLIGHT - 1)];
}

static void fgl_settle(struct fieldgate_link *l, uint8_t number) {
    fgl_flight(l, number)->len = FGL_SETTLED;
    while (l->oldest != l->next && fgl_flight(l, l->oldest)->len == FGL_SETTLED) l->oldest++;
    if (l->measured == number) l->measuring = false;
}

static void fgl_frame_lost(struct fieldgate_link *l, uint8_t number) {
    const struct fieldgate_link_frame *frame = fgl_flight(l, number);
    for (uint16_t i = 0; i < frame->len; i++) {
        uint16_t offset = frame->offset + i;
        *fgl_lost_at(l, offset) |= fgl_lost_bit(offset);
    }
    fgl_settle(l, number);
}

/* RFC 6298, in eighths and quarters so that small values keep their weight. */
static void fgl_measure(struct fieldgate_link *l, uint32_t now) {
    uint32_t gone = now - l->measured_at, variation;
    uint16_t trip = gone > FGL_TIMER_MS_MAX ? FGL_TIMER_MS_MAX : (uint16_t)gone;
    if (l->round_trip_8 == 0) {
        l->round_trip_8 = trip * 8;
        l->variation_4 = trip * 2;
    } else {
        uint16_t smoothed = l->round_trip_8 / 8;
        uint16_t off = trip > smoothed ? trip - smoothed : smoothed - trip;
        l->variation_4 = (uint16_t)(l->variation_4 - l->variation_4 / 4 + off);
        l->round_trip_8 = (uint16_t)(l->round_trip_8 - smoothed + trip);
    }
    variation = l->variation_4 < FGL_VARIATION_MS_MIN ? FGL_VARIATION_MS_MIN : l->variation_4;
    variation += l->round_trip_8 / 8;
    if (variation < FGL_TIMER_MS_MIN) variation = FGL_TIMER_MS_MIN;
    l->timer_ms = variation > FGL_TIMER_MS_MAX ? FGL_TIMER_MS_MAX : (uint16_t)variation;
}

/* What is done frees its room: all before the first octet that is in flight, or to be sent again. */
static void fgl_tx_done(struct fieldgate_link *l) {
    uint16_t done = fgl_first_lost(l);
    for (uint8_t number = l->oldest; number != l->next; number++) {
        const struct fieldgate_link_frame *frame = fgl_flight(l, number);
        bool holds = frame->len != FGL_SETTLED && frame->len != 0;
        if (holds && fgl_ahead(done, frame->offset) > 0) done = frame->offset;
    }
    l->tx_base = done;
}

static void fgl_some_arrived(struct fieldgate_link *l, uint32_t now) {
    l->timer_at = now;
    l->silent_at = now;
    l->single = 0;
    fgl_tx_done(l);
    l->unanswered = l->oldest != l->next || l->tx_base != l->tx_next;
    fgl_say_acks(l);
}

static void fgl_take_ack(struct fieldgate_link *l, uint8_t newest, uint16_t before, uint32_t now) {
    bool some = false;
    if (fgl_newer(newest, l->next) >= 0) return;
    for (uint8_t number = l->oldest; number != l->next && fgl_newer(newest, number) >= 0; number++) {
        uint8_t back = newest - number;
        if (fgl_flight(l, number)->len == FGL_SETTLED) continue;
        if (back > 0 && (back > 16 || (before >> (back - 1) & 1) == 0)) {
            fgl_frame_lost(l, number);
            continue;
        }
        if (l->measuring && l->measured == number) fgl_measure(l, now);
        fgl_settle(l, number);
        some = true;
    }
    if (some) fgl_some_arrived(l, now);
}

static void fgl_take_limit(struct fieldgate_link *l, uint16_t limit) {
    if (fgl_ahead(limit, l->tx_limit) <= 0) return;
    l->tx_limit = limit;
    l->wants_credit = false;
}

/* ---- Session ---- */

static void fgl_tell(struct fieldgate_link *l, const struct fieldgate_link_event *event) {
    l->handler(l->context, event);
}

static void fgl_leave(struct fieldgate_link *l, enum fieldgate_link_why why) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_DOWN, .why = (uint8_t)why};
    l->open = false;
    l->anew = false;
    l->peer = 0;
    if (++l->boot == 0) l->boot = 1;
    l->hello_due = true;
    fgl_tell(l, &event);
}

static uint16_t fgl_window(uint8_t stream) { return stream == FGL_ORDERED ? FIELDGATE_LINK_WINDOW : FIELDGATE_LINK_URGENT; }

static uint8_t *fgl_buffer(struct fieldgate_link *l, uint8_t stream) {
#if FIELDGATE_LINK_URGENT > 0
    if (stream == FGL_URGENT) return l->urgent;
#endif
    (void)stream;
    return l->ordered;
}

static void fgl_start_streams(struct fieldgate_link *l) {
    for (uint8_t stream = 0; stream < FIELDGATE_LINK_STREAMS; stream++) {
        struct fieldgate_link_rx *rx = &l->rx[stream];
        rx->base = rx->have = 0;
        rx->early_count = 0;
        rx->told = fgl_window(stream);
    }
    for (size_t i = 0; i < sizeof l->lost; i++) l->lost[i] = 0;
    l->tx_base = l->tx_next = l->tx_end = 0;
    l->oldest = l->next = 0;
    l->round_trip_8 = l->variation_4 = 0;
    l->timer_ms = FGL_TIMER_MS_START;
    l->before = 0;
    l->single = l->owe_limit = 0;
    l->ack_due = l->heard = l->unanswered = l->measuring = l->wants_credit = false;
}

static void fgl_open(struct fieldgate_link *l) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_UP};
    uint8_t message[48];
    l->open = true;
    l->anew = false;
    l->seed = fgl_crc32(fgl_crc32(FGL_CRC_START, l->peer), l->boot);
    fgl_start_streams(l);
    fgl_say(l, message, fgl_attach(l, message));
    fgl_say_acks(l);
    fgl_tell(l, &event);
}

static void fgl_take_hello(struct fieldgate_link *l, const uint8_t *frame, uint16_t n) {
    if (frame[1] != FGL_VERSION) {
        struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_OTHER_VERSION, .version = frame[1]};
        fgl_tell(l, &event);
        return;
    }
    if (n != FGL_HELLO_LEN) return;
    uint32_t boot = fgl_get32(frame + 2), echo = fgl_get32(frame + 6);
    uint16_t mtu = fgl_get16(frame + 10), window = fgl_get16(frame + 12);
    if (boot == 0 || mtu < FGL_MTU_MIN || window < FGL_GATEWAY_WINDOW_MIN) return;
    if ((frame[0] & FGL_HELLO_ASKS) != 0) l->hello_due = true;
    if (l->open && boot != l->peer) fgl_leave(l, FIELDGATE_LINK_PEER_STARTED);
    if (l->open) return;
    l->peer = boot;
    l->peer_mtu = mtu > FIELDGATE_LINK_MTU ? FIELDGATE_LINK_MTU : mtu;
    l->tx_limit = window > FGL_WINDOW_MAX ? FGL_WINDOW_MAX : window;
    if (echo == l->boot) fgl_open(l);
}

/* ---- Messages to the device ---- */

struct fgl_reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static uint8_t fgl_read_octet(struct fgl_reader *r) {
    if (r->left == 0) {
        r->bad = true;
        return 0;
    }
    r->left--;
    return *r->at++;
}

static const uint8_t *fgl_read_octets(struct fgl_reader *r, size_t n) {
    const uint8_t *octets = r->at;
    if (n > r->left) {
        r->bad = true;
        return octets;
    }
    r->at += n;
    r->left -= n;
    return octets;
}

static uint64_t fgl_read_varint(struct fgl_reader *r, uint64_t max) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t octet = fgl_read_octet(r);
        if (shift == 63 && octet > 1) break;
        value |= (uint64_t)(octet & 0x7f) << shift;
        if (octet > 0x7f) continue;
        if (value > max) r->bad = true;
        return value;
    }
    r->bad = true;
    return 0;
}

static uint16_t fgl_read_channel(struct fgl_reader *r, uint16_t min) {
    uint16_t channel = (uint16_t)fgl_read_varint(r, UINT16_MAX);
    if (channel < min) r->bad = true;
    return channel;
}

/* `octets` and `text`. */
static const uint8_t *fgl_read_counted(struct fgl_reader *r, size_t *n) {
    *n = (size_t)fgl_read_varint(r, FGL_MESSAGE_MAX);
    return fgl_read_octets(r, *n);
}

static bool fgl_read_all(const struct fgl_reader *r) { return !r->bad && r->left == 0; }

static void fgl_take_push(struct fieldgate_link *l, struct fgl_reader *r, bool urgent) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_PUSH, .urgent = urgent};
    event.id = fgl_read_octets(r, 8);
    event.channel = fgl_read_channel(r, 1);
    event.age = (uint32_t)fgl_read_varint(r, UINT32_MAX);
    event.body = fgl_read_counted(r, &event.len);
    if (!fgl_read_all(r)) return;
    uint8_t known = fgl_find_id(l, event.id);
    if (known < l->ids_count) {
        /* A copy. If the application has not answered yet, its answer will be that of the copy. */
        if (l->ids[known].state != FGL_HANDED) fieldgate_link_ack(l, event.id);
    } else if (fgl_count_ids(l, FGL_HANDED) >= FIELDGATE_LINK_WAITING) {
        fgl_say_refuse(l, event.id, FIELDGATE_LINK_FULL);
    } else {
        fgl_keep_id(l, event.id, FGL_HANDED);
        fgl_tell(l, &event);
    }
}

static void fgl_take_subscribed(struct fieldgate_link *l, struct fgl_reader *r) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_SUBSCRIBED};
    size_t p256dh_len, auth_len;
    event.channel = fgl_read_channel(r, 1);
    event.body = fgl_read_counted(r, &event.len);
    event.p256dh = fgl_read_counted(r, &p256dh_len);
    event.auth = fgl_read_counted(r, &auth_len);
    if (fgl_read_all(r) && p256dh_len == 65 && auth_len == 16) fgl_tell(l, &event);
}

static void fgl_take_status(struct fieldgate_link *l, struct fgl_reader *r) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_STATUS};
    event.uplink = fgl_read_octet(r);
    event.waiting = fgl_read_octet(r);
    event.time = fgl_read_varint(r, UINT64_MAX);
    if (fgl_read_all(r) && event.uplink <= FIELDGATE_LINK_PERSON_NEEDED) fgl_tell(l, &event);
}

static void fgl_take_refused(struct fieldgate_link *l, struct fgl_reader *r, uint32_t now) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_REFUSED};
    event.channel = fgl_read_channel(r, 0);
    event.reason = fgl_read_octet(r);
    if (!fgl_read_all(r) || event.reason > FIELDGATE_LINK_NOT_POSSIBLE) return;
    if (event.channel == 0 && event.reason == FIELDGATE_LINK_UNKNOWN_DEVICE) {
        l->anew = true;
        l->hello_at = now;
    }
    fgl_tell(l, &event);
}

static void fgl_take_unsubscribed(struct fieldgate_link *l, struct fgl_reader *r) {
    struct fieldgate_link_event event = {.kind = FIELDGATE_LINK_UNSUBSCRIBED};
    event.channel = fgl_read_channel(r, 1);
    if (fgl_read_all(r)) fgl_tell(l, &event);
}

static void fgl_take_message(struct fieldgate_link *l, const uint8_t *message, uint16_t n, bool urgent, uint32_t now) {
    struct fgl_reader r = {message, n, false};
    uint8_t tag = fgl_read_octet(&r);
    if (r.bad) return;
    switch (tag) {
    case FGL_TAG_STATUS: fgl_take_status(l, &r); break;
    case FGL_TAG_PUSH: fgl_take_push(l, &r, urgent); break;
    case FGL_TAG_SUBSCRIBED: fgl_take_subscribed(l, &r); break;
    case FGL_TAG_REFUSED: fgl_take_refused(l, &r, now); break;
    case FGL_TAG_UNSUBSCRIBED: fgl_take_unsubscribed(l, &r); break;
    default: break; /* of a later version */
    }
}

/* ---- Receiving DATA ---- */

/* Octets of the length, 0 if it is not there yet. */
static uint8_t fgl_read_length(const uint8_t *at, uint16_t have, uint16_t *length) {
    if (have < 1) return 0;
    *length = at[0];
    if (at[0] < 0x80) return 1;
    if (have < 2) return 0;
    *length = at[1] < 0x80 ? (uint16_t)((at[0] & 0x7f) | at[1] << 7) : UINT16_MAX;
    return 2;
}

static void fgl_free_room(struct fieldgate_link *l, uint8_t stream, uint16_t n) {
    struct fieldgate_link_rx *rx = &l->rx[stream];
    uint8_t *buffer = fgl_buffer(l, stream);
    uint16_t end = rx->early_count > 0 ? rx->early[rx->early_count - 1].end : rx->have;
    fgl_move(buffer, buffer + n, (size_t)(end - n));
    rx->base += n;
    rx->have -= n;
    for (uint8_t i = 0; i < rx->early_count; i++) {
        rx->early[i].start -= n;
        rx->early[i].end -= n;
    }
    uint16_t risen = (uint16_t)(rx->base + fgl_window(stream) - rx->told);
    if (risen >= fgl_window(stream) / 2) l->owe_limit |= 1 << stream;
}

/* The messages without a gap before them. One is taken only when its answer fits, so no answer is ever lost. */
static void fgl_take_messages(struct fieldgate_link *l, uint8_t stream, uint32_t now) {
    const struct fieldgate_link_rx *rx = &l->rx[stream];
    const uint8_t *buffer = fgl_buffer(l, stream);
    uint16_t at = 0;
    while (fgl_tx_room(l) >= FGL_REFUSE_OCTETS) {
        uint16_t length;
        uint8_t head = fgl_read_length(buffer + at, rx->have - at, &length);
        if (head == 0) break;
        if (length > FGL_MESSAGE_MAX || length > fgl_window(stream) - 2) {
            fgl_leave(l, FIELDGATE_LINK_PEER_BROKE_RULES);
            return;
        }
        if (rx->have - at - head < length) break;
        fgl_take_message(l, buffer + at + head, length, stream == FGL_URGENT, now);
        at = (uint16_t)(at + head + length);
    }
    if (at > 0) fgl_free_room(l, stream, at);
}

/* Notes octets behind a gap; false if there are too many pieces already. */
static bool fgl_note_early(struct fieldgate_link_rx *rx, uint16_t start, uint16_t end) {
    uint8_t first = 0, last;
    while (first < rx->early_count && rx->early[first].end < start) first++;
    for (last = first; last < rx->early_count && rx->early[last].start <= end; last++) {
        if (rx->early[last].start < start) start = rx->early[last].start;
        if (rx->early[last].end > end) end = rx->early[last].end;
    }
    if (last == first && rx->early_count == FIELDGATE_LINK_RANGES) return false;
    uint8_t behind = rx->early_count - last;
    fgl_move(&rx->early[first + 1], &rx->early[last], behind * sizeof rx->early[0]);
    rx->early[first].start = start;
    rx->early[first].end = end;
    rx->early_count = (uint8_t)(first + 1 + behind);
    return true;
}

static void fgl_close_gap(struct fieldgate_link_rx *rx) {
    if (rx->early_count == 0 || rx->early[0].start > rx->have) return;
    if (rx->early[0].end > rx->have) rx->have = rx->early[0].end;
    rx->early_count--;
    fgl_move(&rx->early[0], &rx->early[1], rx->early_count * sizeof rx->early[0]);
}

/* False if the frame is to be dropped. */
static bool fgl_take_payload(struct fieldgate_link *l, uint8_t stream, uint16_t offset, const uint8_t *payload,
                             uint16_t n) {
    if (n == 0) return true;
    if (stream >= FIELDGATE_LINK_STREAMS) return false;
    struct fieldgate_link_rx *rx = &l->rx[stream];
    int32_t start = fgl_ahead(offset, rx->base), end = start + n;
    if (end > (uint16_t)(rx->told - rx->base)) return false;
    if (end <= rx->have) return true;
    if (start < rx->have) {
        payload += rx->have - start;
        start = rx->have;
    }
    if (!fgl_note_early(rx, (uint16_t)start, (uint16_t)end)) {
        if (start > rx->have) return false;
        rx->have = (uint16_t)end; /* with no gap before it there is no need for a note */
    }
    fgl_copy(fgl_buffer(l, stream) + start, payload, (size_t)(end - start));
    fgl_close_gap(rx);
    return true;
}

static void fgl_note_number(struct fieldgate_link *l, uint8_t number) {
    int8_t ahead = fgl_newer(number, l->newest);
    if (!l->heard) {
        l->newest = number;
    } else if (ahead > 0) {
        l->before = ahead > 16 ? 0 : (uint16_t)((((uint32_t)l->before << 1) | 1) << (ahead - 1));
        l->newest = number;
    } else if (ahead < 0 && ahead >= -16) {
        l->before |= (uint16_t)(1u << (-ahead - 1));
    }
    l->heard = true;
}

static void fgl_take_data(struct fieldgate_link *l, const uint8_t *frame, uint16_t n, uint32_t now) {
    uint8_t flags = frame[0], stream = (flags & FGL_IS_URGENT) != 0 ? FGL_URGENT : FGL_ORDERED;
    uint16_t at = 4, ack_at = at;
    if ((flags & FGL_HAS_ACK) != 0) at += 3;
    uint16_t limit_at = at;
    if ((flags & FGL_HAS_LIMIT) != 0) at += 2;
    if (n < at + 4) return;
    uint16_t payload_len = (uint16_t)(n - 4 - at);
    if (!fgl_take_payload(l, stream, fgl_get16(frame + 2), frame + at, payload_len)) return;
    fgl_note_number(l, frame[1]);
    l->ack_due = true;
    if (payload_len == 0) l->owe_limit |= 1 << stream;
    if ((flags & FGL_HAS_LIMIT) != 0) fgl_take_limit(l, fgl_get16(frame + limit_at));
    if ((flags & FGL_HAS_ACK) != 0) fgl_take_ack(l, frame[ack_at], fgl_get16(frame + ack_at + 1), now);
}

static void fgl_take_ack_frame(struct fieldgate_link *l, const uint8_t *frame, uint32_t now) {
    if ((frame[0] & FGL_IS_URGENT) == 0) fgl_take_limit(l, fgl_get16(frame + 4));
    fgl_take_ack(l, frame[1], fgl_get16(frame + 2), now);
}

static void fgl_take_probe(struct fieldgate_link *l, const uint8_t *frame, uint16_t n) {
    uint16_t echo = n - 5;
    if ((frame[0] & FGL_IS_ANSWER) != 0 || echo > sizeof l->probe) return;
    fgl_copy(l->probe, frame + 1, echo);
    l->probe_len = echo;
    l->probe_due = true;
}

static void fgl_take_frame(struct fieldgate_link *l, const uint8_t *frame, uint16_t n, uint32_t now) {
    uint8_t kind = frame[0] & FGL_KIND;
    bool in_session = kind == FGL_DATA || kind == FGL_ACK;
    if ((frame[0] & FGL_FROM_DEVICE) != 0 || n < FGL_PROBE_LEN_MIN || (in_session && !l->open)) return;
    if (!fgl_crc_fits(in_session ? l->seed : FGL_CRC_START, frame, n)) return;
    if (kind == FGL_HELLO) {
        fgl_take_hello(l, frame, n);
    } else if (kind == FGL_PROBE) {
        fgl_take_probe(l, frame, n);
    } else if (kind == FGL_DATA && n >= FGL_DATA_LEN_MIN) {
        fgl_take_data(l, frame, n, now);
    } else if (kind == FGL_ACK && n == FGL_ACK_LEN) {
        fgl_take_ack_frame(l, frame, now);
    }
    for (uint8_t stream = FIELDGATE_LINK_STREAMS; l->open && stream-- > 0;) fgl_take_messages(l, stream, now);
}

/* ---- Frames in the stream of octets ---- */

static void fgl_begin_frame(struct fieldgate_link *l) {
    l->frame_len = l->encoded_len = 0;
    l->block = 0xff; /* no zero before the first block */
    l->block_left = 0;
    l->damaged = false;
}

static void fgl_decoded(struct fieldgate_link *l, uint8_t octet) {
    if (l->frame_len == sizeof l->frame) {
        l->damaged = true;
    } else {
        l->frame[l->frame_len++] = octet;
    }
}

static void fgl_feed_octet(struct fieldgate_link *l, uint8_t octet, uint32_t now) {
    if (octet == 0) {
        bool whole = !l->damaged && l->block_left == 0 && l->frame_len > 0;
        if (whole) fgl_take_frame(l, l->frame, l->frame_len, now);
        fgl_begin_frame(l);
        return;
    }
    if (l->encoded_len >= FIELDGATE_LINK_MTU - 1) l->damaged = true; /* the delimiter would not fit */
    if (l->damaged) return;
    l->encoded_len++;
    if (l->block_left > 0) {
        l->block_left--;
        fgl_decoded(l, octet);
        return;
    }
    if (l->block != 0xff) fgl_decoded(l, 0);
    l->block = octet;
    l->block_left = octet - 1;
}

/* ---- Sending ---- */

enum fgl_due { FGL_DUE_NOTHING, FGL_DUE_DELIMITER, FGL_DUE_HELLO, FGL_DUE_PROBE, FGL_DUE_DATA, FGL_DUE_ACK };

static bool fgl_may_send(const struct fieldgate_link *l) {
    return (uint8_t)(l->next - l->oldest) < FIELDGATE_LINK_FLIGHT && l->single != 2;
}

static bool fgl_lacks_credit(const struct fieldgate_link *l) {
    return l->open && l->oldest == l->next && l->tx_next == l->tx_limit && l->tx_end != l->tx_next &&
           fgl_first_lost(l) == l->tx_next;
}

static bool fgl_credit_due(const struct fieldgate_link *l, uint32_t now) {
    return l->wants_credit && fgl_lacks_credit(l) && fgl_left(now, l->credit_at, FGL_CREDIT_MS) == 0;
}

static bool fgl_data_due(const struct fieldgate_link *l, uint32_t now) {
    if (!fgl_may_send(l)) return false;
    if (fgl_first_lost(l) != l->tx_next) return true;
    if (l->tx_end != l->tx_next && l->tx_limit != l->tx_next) return true;
    return fgl_credit_due(l, now);
}

static enum fgl_due fgl_due(const struct fieldgate_link *l, uint32_t now) {
    if (l->delimiter_due) return FGL_DUE_DELIMITER;
    if (l->hello_due) return FGL_DUE_HELLO;
    if (l->probe_due) return FGL_DUE_PROBE;
    if (!l->open) return FGL_DUE_NOTHING;
    if ((l->owe_limit & 1 << FGL_URGENT) != 0) return FGL_DUE_ACK; /* no DATA carries it */
    if (fgl_data_due(l, now)) return FGL_DUE_DATA;
    return l->ack_due || l->owe_limit != 0 ? FGL_DUE_ACK : FGL_DUE_NOTHING;
}

static size_t fgl_send_hello(struct fieldgate_link *l, uint8_t *out, uint32_t now) {
    struct fgl_writer w = fgl_begin(out, FGL_CRC_START, FGL_HELLO | (l->open ? 0 : FGL_HELLO_ASKS));
    l->hello_due = false;
    l->hello_at = now;
    fgl_put(&w, FGL_VERSION);
    fgl_put32(&w, l->boot);
    fgl_put32(&w, l->peer);
    fgl_put16(&w, FIELDGATE_LINK_MTU);
    fgl_put16(&w, FIELDGATE_LINK_WINDOW);
    return fgl_finish(&w);
}

static size_t fgl_send_probe(struct fieldgate_link *l, uint8_t *out) {
    struct fgl_writer w = fgl_begin(out, FGL_CRC_START, FGL_PROBE | FGL_IS_ANSWER);
    l->probe_due = false;
    for (uint16_t i = 0; i < l->probe_len; i++) fgl_put(&w, l->probe[i]);
    return fgl_finish(&w);
}

static void fgl_put_ack(struct fieldgate_link *l, struct fgl_writer *w) {
    l->ack_due = false;
    fgl_put(w, l->newest);
    fgl_put16(w, l->before);
}

static void fgl_put_limit(struct fieldgate_link *l, struct fgl_writer *w, uint8_t stream) {
    uint16_t limit = 0;
    l->owe_limit &= (uint8_t)~(1u << stream);
    if (stream < FIELDGATE_LINK_STREAMS) {
        limit = l->rx[stream].base + fgl_window(stream);
        l->rx[stream].told = limit;
    }
    fgl_put16(w, limit);
}

static size_t fgl_send_ack(struct fieldgate_link *l, uint8_t *out) {
    uint8_t stream = (l->owe_limit & 1 << FGL_URGENT) != 0 ? FGL_URGENT : FGL_ORDERED;
    struct fgl_writer w = fgl_begin(out, l->seed, FGL_ACK | (stream == FGL_URGENT ? FGL_IS_URGENT : 0));
    fgl_put_ack(l, &w);
    fgl_put_limit(l, &w, stream);
    return fgl_finish(&w);
}

static void fgl_note_sent(struct fieldgate_link *l, uint16_t offset, uint16_t len, uint32_t now) {
    struct fieldgate_link_frame *frame = fgl_flight(l, l->next);
    if (l->oldest == l->next) l->timer_at = now;
    if (!l->unanswered) l->silent_at = now;
    l->unanswered = true;
    if (l->single == 1) l->single = 2;
    if (!l->measuring) {
        l->measuring = true;
        l->measured = l->next;
        l->measured_at = now;
    }
    frame->offset = offset;
    frame->len = len;
    l->next++;
}

/* The octets that are sent next: what is sent again first, then what is new, at most `max`; none: asks for the limit. */
static uint16_t fgl_choose_payload(struct fieldgate_link *l, uint16_t max, uint16_t *offset) {
    uint16_t len = 0, credit = l->tx_limit - l->tx_next, fresh = l->tx_end - l->tx_next;
    *offset = fgl_first_lost(l);
    if (*offset != l->tx_next) {
        for (; len < max && *offset + len != l->tx_next && fgl_is_lost(l, *offset + len); len++) {
            *fgl_lost_at(l, *offset + len) &= ~fgl_lost_bit(*offset + len);
        }
        return len;
    }
    len = fresh < credit ? fresh : credit;
    if (len > max) len = max;
    l->tx_next += len;
    return len;
}

static bool fgl_tells_limit(const struct fieldgate_link *l) {
    const struct fieldgate_link_rx *rx = &l->rx[FGL_ORDERED];
    uint16_t left = (uint16_t)(rx->told - rx->base - rx->have);
    return (l->owe_limit & 1 << FGL_ORDERED) != 0 || left < FIELDGATE_LINK_WINDOW / 2;
}

static size_t fgl_send_data(struct fieldgate_link *l, uint8_t *out, uint32_t now) {
    uint16_t offset, max = fgl_raw_max(l->peer_mtu) - FGL_DATA_LEN_MIN;
    uint8_t kind = FGL_DATA;
    bool tells_limit = fgl_tells_limit(l);
    if (l->ack_due || (l->owe_limit & 1 << FGL_ORDERED) != 0) kind |= FGL_HAS_ACK;
    if (tells_limit) kind |= FGL_HAS_LIMIT;
    if ((kind & FGL_HAS_ACK) != 0) max -= 3;
    if (tells_limit) max -= 2;
    uint16_t len = fgl_choose_payload(l, max, &offset);
    if (len == 0) l->credit_at = now;
    struct fgl_writer w = fgl_begin(out, l->seed, kind);
    fgl_put(&w, l->next);
    fgl_put16(&w, offset);
    if ((kind & FGL_HAS_ACK) != 0) fgl_put_ack(l, &w);
    if (tells_limit) fgl_put_limit(l, &w, FGL_ORDERED);
    for (uint16_t i = 0; i < len; i++) fgl_put(&w, *fgl_tx_at(l, offset + i));
    fgl_note_sent(l, offset, len, now);
    return fgl_finish(&w);
}

/* ---- Timers ---- */

static void fgl_timer_ran_out(struct fieldgate_link *l, uint32_t now) {
    l->timer_ms = l->timer_ms > FGL_TIMER_MS_MAX / 2 ? FGL_TIMER_MS_MAX : l->timer_ms * 2;
    l->timer_at = now;
    l->single = 1;
    fgl_frame_lost(l, l->oldest);
}

static void fgl_run_timers(struct fieldgate_link *l, uint32_t now) {
    if (!l->open) {
        if (fgl_left(now, l->hello_at, FGL_HELLO_MS) == 0) l->hello_due = true;
        return;
    }
    if (l->anew && fgl_left(now, l->hello_at, FGL_ANEW_MS) == 0) {
        fgl_leave(l, FIELDGATE_LINK_RESTARTED);
        return;
    }
    if (l->unanswered && fgl_left(now, l->silent_at, FGL_SILENCE_MS) == 0) {
        fgl_leave(l, FIELDGATE_LINK_PEER_SILENT);
        return;
    }
    if (l->oldest != l->next && fgl_left(now, l->timer_at, l->timer_ms) == 0) fgl_timer_ran_out(l, now);
    if (!l->wants_credit && fgl_lacks_credit(l)) {
        l->wants_credit = true;
        l->credit_at = now;
    }
}

static void fgl_earlier(uint32_t *earliest, uint32_t left) {
    if (left < *earliest) *earliest = left;
}

/* ---- What the firmware calls ---- */

static bool fgl_device_name_fits(const char *device) {
    size_t n = 0;
    for (; device[n] != 0; n++) {
        char c = device[n];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool other = (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (n == 32 || !(letter || other)) return false;
    }
    return n > 0;
}

bool fieldgate_link_start(struct fieldgate_link *l, const char *device, uint32_t boot_id, bool keeps_ids,
                          fieldgate_link_handler *handler, void *context) {
    uint8_t message[48], *octets = (uint8_t *)l;
    for (size_t i = 0; i < sizeof *l; i++) octets[i] = 0;
    l->handler = handler;
    l->context = context;
    l->device = device;
    l->boot = boot_id == 0 ? 1 : boot_id;
    l->traits = keeps_ids;
    l->hello_due = true;
    fieldgate_link_reconnected(l);
    return fgl_device_name_fits(device) && fgl_attach(l, message) < FIELDGATE_LINK_TX;
}

void fieldgate_link_remember(struct fieldgate_link *l, const uint8_t id[8]) { fgl_keep_id(l, id, FGL_ACKED); }

void fieldgate_link_reconnected(struct fieldgate_link *l) {
    l->delimiter_due = true;
    fgl_begin_frame(l);
}

void fieldgate_link_feed(struct fieldgate_link *l, const uint8_t *octets, size_t n, uint32_t now_ms) {
    for (size_t i = 0; i < n; i++) fgl_feed_octet(l, octets[i], now_ms);
}

size_t fieldgate_link_poll(struct fieldgate_link *l, uint32_t now_ms, uint8_t out[FIELDGATE_LINK_MTU]) {
    fgl_run_timers(l, now_ms);
    switch (fgl_due(l, now_ms)) {
    case FGL_DUE_DELIMITER: l->delimiter_due = false; out[0] = 0; return 1;
    case FGL_DUE_HELLO: return fgl_send_hello(l, out, now_ms);
    case FGL_DUE_PROBE: return fgl_send_probe(l, out);
    case FGL_DUE_DATA: return fgl_send_data(l, out, now_ms);
    case FGL_DUE_ACK: return fgl_send_ack(l, out);
    case FGL_DUE_NOTHING: break;
    }
    return 0;
}

uint32_t fieldgate_link_poll_timeout(const struct fieldgate_link *l, uint32_t now_ms) {
    uint32_t earliest = FIELDGATE_LINK_NEVER;
    if (fgl_due(l, now_ms) != FGL_DUE_NOTHING) return 0;
    if (!l->open) return fgl_left(now_ms, l->hello_at, FGL_HELLO_MS);
    if (l->anew) fgl_earlier(&earliest, fgl_left(now_ms, l->hello_at, FGL_ANEW_MS));
    if (l->unanswered) fgl_earlier(&earliest, fgl_left(now_ms, l->silent_at, FGL_SILENCE_MS));
    if (l->oldest != l->next) fgl_earlier(&earliest, fgl_left(now_ms, l->timer_at, l->timer_ms));
    if (fgl_lacks_credit(l)) {
        fgl_earlier(&earliest, l->wants_credit ? fgl_left(now_ms, l->credit_at, FGL_CREDIT_MS) : 0);
    }
    return earliest;
}

void fieldgate_link_ack(struct fieldgate_link *l, const uint8_t id[8]) {
    fgl_keep_id(l, id, FGL_ACK_OWED);
    fgl_say_acks(l);
}

bool fieldgate_link_refuse(struct fieldgate_link *l, const uint8_t id[8], enum fieldgate_link_reason reason) {
    uint8_t known = fgl_find_id(l, id);
    if (!fgl_say_refuse(l, id, (uint8_t)reason)) return false;
    if (known < l->ids_count) fgl_forget_id(l, known);
    return true;
}

bool fieldgate_link_subscribe(struct fieldgate_link *l, uint16_t channel) {
    return fgl_say_channel(l, FGL_TAG_SUBSCRIBE, channel);
}

bool fieldgate_link_unsubscribe(struct fieldgate_link *l, uint16_t channel) {
    return fgl_say_channel(l, FGL_TAG_UNSUBSCRIBE, channel);
}

bool fieldgate_link_rotate(struct fieldgate_link *l, uint16_t channel) {
    return fgl_say_channel(l, FGL_TAG_ROTATE, channel);
}

bool fieldgate_link_sleep(struct fieldgate_link *l, uint32_t seconds) { return fgl_say_number(l, FGL_TAG_SLEEP, seconds); }

bool fieldgate_link_awake(struct fieldgate_link *l) {
    const uint8_t message[1] = {FGL_TAG_AWAKE};
    return fgl_say(l, message, sizeof message);
}

bool fieldgate_link_ask(struct fieldgate_link *l) {
    const uint8_t message[1] = {FGL_TAG_ASK};
    return fgl_say(l, message, sizeof message);
}

bool fieldgate_link_is_open(const struct fieldgate_link *l) { return l->open; }

bool fieldgate_link_is_settled(const struct fieldgate_link *l) {
    return l->open && l->tx_base == l->tx_end && l->oldest == l->next && fgl_due(l, 0) == FGL_DUE_NOTHING;
}

void fieldgate_link_restart(struct fieldgate_link *l, uint32_t now_ms) {
    l->anew = true;
    l->hello_at = now_ms - FGL_ANEW_MS;
}

#endif
