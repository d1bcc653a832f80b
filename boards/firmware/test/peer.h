/* A gateway for tests: the other role of the link protocol, with as much memory as it likes, written without the header
 * under test. It checks what the device sends, and ends the program when the device breaks a rule. */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEER_STREAM (1u << 20)
#define PEER_PUSHES 4096
#define PEER_WINDOW 256

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

enum peer_octet { PEER_UNSENT, PEER_IN_FLIGHT, PEER_ARRIVED, PEER_LOST };
enum peer_push_state { PEER_WAITING, PEER_PUSHED, PEER_DONE };

struct peer_push {
    uint8_t id[8];
    uint16_t channel, len;
    bool urgent;
    uint8_t state;
    uint32_t since, times;
    uint8_t *body;
};

struct peer_tx {
    uint8_t *octets, *state;
    uint32_t end, next, low, limit; /* low: all before arrived */
};

struct peer_frame {
    bool active;
    uint8_t stream;
    uint32_t at, len;
};

struct peer {
    uint16_t mtu, device_mtu, device_window;
    uint32_t boot, device, hello_at, timer_at, timer_ms, arrived_at, credit_at;
    bool open, hello_due, delimiter_due, ack_due, heard, attached, asleep, single;
    uint8_t newest, next, oldest, version;
    uint16_t before;
    bool single_used;

    struct peer_tx tx[2];
    struct peer_frame flight[256];
    uint8_t *rx, *rx_have;
    uint32_t rx_end, rx_taken, rx_told; /* without gaps, taken, limit told */

    uint8_t encoded[1100];
    size_t encoded_len;
    uint8_t probe[1100];
    size_t probe_len;
    bool probe_due;

    char name[33];
    uint32_t largest, urgent, memory, traits;
    const char *expected;

    struct peer_push pushes[PEER_PUSHES];
    uint32_t push_count, done_count;
    bool status_due;
    uint32_t sessions, acks, refusals, frames_in, frames_bad, frames_out, awakes, probes_answered;
};

static uint32_t peer_crc(uint32_t crc, const uint8_t *octets, size_t n) {
    for (size_t i = 0; i < n; i++) {
        crc ^= octets[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    }
    return crc;
}

static uint32_t peer_get(const uint8_t *p, int octets) {
    uint32_t value = 0;
    for (int i = 0; i < octets; i++) value |= (uint32_t)p[i] << (8 * i);
    return value;
}

static size_t peer_set(uint8_t *p, uint32_t value, int octets) {
    for (int i = 0; i < octets; i++) p[i] = (uint8_t)(value >> (8 * i));
    return (size_t)octets;
}

static uint32_t peer_session_crc(const struct peer *p) {
    uint8_t seed[8];
    peer_set(seed, p->boot, 4);
    peer_set(seed + 4, p->device, 4);
    return peer_crc(0xffffffffu, seed, 8);
}

/* As the specification says it: one zero behind the frame, cut into blocks. */
static size_t peer_encode(const uint8_t *frame, size_t n, uint8_t *out) {
    size_t len = 0, at = 0;
    while (at <= n) {
        size_t block = 0;
        while (block < 254 && at + block < n && frame[at + block] != 0) block++;
        out[len++] = (uint8_t)(block + 1);
        memcpy(out + len, frame + at, block);
        len += block;
        at += block;
        if (block < 254) at++;
        if (block == 254 && at == n) break;
    }
    out[len++] = 0;
    return len;
}

static size_t peer_decode(const uint8_t *in, size_t n, uint8_t *out) {
    size_t len = 0, at = 0;
    while (at < n) {
        uint8_t code = in[at++];
        if (at + code - 1 > n) return 0;
        memcpy(out + len, in + at, code - 1u);
        len += code - 1u;
        at += code - 1u;
        if (code != 0xff && at < n) out[len++] = 0;
    }
    return len;
}

static void peer_init(struct peer *p, uint32_t boot, uint16_t mtu, const char *expected) {
    memset(p, 0, sizeof *p);
    p->boot = boot;
    p->mtu = mtu;
    p->expected = expected;
    for (int s = 0; s < 2; s++) {
        p->tx[s].octets = malloc(PEER_STREAM);
        p->tx[s].state = malloc(PEER_STREAM);
        REQUIRE(p->tx[s].octets != NULL && p->tx[s].state != NULL);
    }
    p->rx = malloc(PEER_STREAM);
    p->rx_have = calloc(1, PEER_STREAM);
    REQUIRE(p->rx != NULL && p->rx_have != NULL);
    p->hello_due = p->delimiter_due = true;
}

static void peer_free(struct peer *p) {
    for (int s = 0; s < 2; s++) {
        free(p->tx[s].octets);
        free(p->tx[s].state);
    }
    free(p->rx);
    free(p->rx_have);
    for (uint32_t i = 0; i < p->push_count; i++) free(p->pushes[i].body);
}

static void peer_leave(struct peer *p) {
    p->open = false;
    p->device = 0;
    if (++p->boot == 0) p->boot = 1;
    p->hello_due = true;
}

static void peer_open(struct peer *p, uint32_t now) {
    for (int s = 0; s < 2; s++) {
        struct peer_tx *tx = &p->tx[s];
        tx->end = tx->next = tx->low = 0;
        tx->limit = s == 0 ? p->device_window : 0;
        memset(tx->state, PEER_UNSENT, PEER_STREAM);
    }
    memset(p->flight, 0, sizeof p->flight);
    memset(p->rx_have, 0, PEER_STREAM);
    p->rx_end = p->rx_taken = 0;
    p->rx_told = PEER_WINDOW;
    p->next = p->oldest = 0;
    p->ack_due = p->heard = p->attached = p->asleep = p->single = p->status_due = false;
    p->before = 0;
    p->timer_ms = 1000;
    p->arrived_at = now;
    p->open = true;
    p->sessions++;
    for (uint32_t i = 0; i < p->push_count; i++) {
        if (p->pushes[i].state == PEER_PUSHED) p->pushes[i].state = PEER_WAITING;
    }
}

static void peer_say(struct peer *p, int stream, const uint8_t *message, uint32_t n) {
    struct peer_tx *tx = &p->tx[stream];
    REQUIRE(tx->end + n + 2 < PEER_STREAM);
    if (n > 127) tx->octets[tx->end++] = (uint8_t)(n | 0x80);
    tx->octets[tx->end++] = (uint8_t)(n > 127 ? n >> 7 : n);
    memcpy(tx->octets + tx->end, message, n);
    tx->end += n;
}

static uint32_t peer_varint(uint8_t *out, uint64_t value) {
    uint32_t n = 0;
    for (; value > 127; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

static void peer_say_status(struct peer *p, uint8_t waiting) {
    uint8_t message[16] = {0, 1, waiting};
    peer_say(p, 0, message, 3 + peer_varint(message + 3, 1700000000000u));
}

static struct peer_push *peer_add_push(struct peer *p, const uint8_t id[8], uint16_t channel, bool urgent,
                                       const uint8_t *body, uint16_t len) {
    REQUIRE(p->push_count < PEER_PUSHES);
    struct peer_push *push = &p->pushes[p->push_count++];
    memset(push, 0, sizeof *push);
    memcpy(push->id, id, 8);
    push->channel = channel;
    push->urgent = urgent;
    push->len = len;
    push->body = malloc(len + 1u);
    REQUIRE(push->body != NULL);
    memcpy(push->body, body, len);
    return push;
}

static void peer_say_push(struct peer *p, struct peer_push *push, uint32_t now) {
    uint8_t message[4200] = {1};
    uint32_t n = 9;
    memcpy(message + 1, push->id, 8);
    n += peer_varint(message + n, push->channel);
    n += peer_varint(message + n, 3);
    n += peer_varint(message + n, push->len);
    memcpy(message + n, push->body, push->len);
    n += push->len;
    if (n > p->largest || n + 2 > (push->urgent ? p->urgent : p->largest + 2)) {
        push->state = PEER_DONE; /* it would stay with the service */
        p->done_count++;
        return;
    }
    peer_say(p, push->urgent ? 1 : 0, message, n);
    push->state = PEER_PUSHED;
    push->since = now;
    push->times++;
}

/* Hands over what waits, as many at once as the device remembers half of. What is not answered comes again. */
static void peer_serve(struct peer *p, uint32_t now) {
    uint32_t most = p->memory / 2 < 1 ? 1 : p->memory / 2 > 8 ? 8 : p->memory / 2, waiting = 0;
    if (!p->open || !p->attached || p->asleep) return;
    for (uint32_t i = 0; i < p->push_count; i++) {
        struct peer_push *push = &p->pushes[i];
        if (push->state == PEER_PUSHED && now - push->since > 10000) push->state = PEER_WAITING;
        waiting += push->state == PEER_PUSHED;
    }
    for (uint32_t i = 0; i < p->push_count && waiting < most; i++) {
        struct peer_push *push = &p->pushes[i];
        if (push->state != PEER_WAITING || now < push->since) continue;
        peer_say_push(p, push, now);
        waiting++;
    }
    if (p->status_due && waiting == 0) {
        p->status_due = false;
        peer_say_status(p, 0);
    }
}

/* ---- Messages of the device ---- */

static uint64_t peer_read_varint(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        REQUIRE(*at < end && shift < 63);
        uint8_t octet = *(*at)++;
        value |= (uint64_t)(octet & 0x7f) << shift;
        if (octet < 0x80) {
            REQUIRE(shift == 0 || octet != 0); /* the shortest form */
            return value;
        }
    }
}

static void peer_attach(struct peer *p, const uint8_t *at, const uint8_t *end) {
    uint64_t n = peer_read_varint(&at, end);
    REQUIRE(n >= 1 && n <= 32 && at + n < end);
    memcpy(p->name, at, n);
    p->name[n] = 0;
    at += n;
    p->largest = (uint32_t)peer_read_varint(&at, end);
    p->urgent = (uint32_t)peer_read_varint(&at, end);
    p->memory = (uint32_t)peer_read_varint(&at, end);
    REQUIRE(at + 1 == end);
    REQUIRE(p->largest >= 32 && p->largest <= 4096 && p->largest <= p->device_window - 2u);
    p->traits = *at;
    p->attached = strcmp(p->name, p->expected) == 0;
    if (p->attached) {
        p->tx[1].limit = p->urgent;
        peer_say_status(p, 255);
    } else {
        peer_say(p, 0, (const uint8_t[]){3, 0, 1}, 3);
    }
}

static struct peer_push *peer_find(struct peer *p, const uint8_t *id) {
    for (uint32_t i = 0; i < p->push_count; i++) {
        if (memcmp(p->pushes[i].id, id, 8) == 0) return &p->pushes[i];
    }
    return NULL;
}

static void peer_answer(struct peer *p, const uint8_t *message, uint32_t n, uint32_t now) {
    struct peer_push *push = peer_find(p, message + 1);
    REQUIRE(n == (message[0] == 1 ? 9u : 10u));
    if (push == NULL) return;
    if (message[0] == 1) {
        p->acks++;
        if (push->state != PEER_DONE) p->done_count++;
        push->state = PEER_DONE;
    } else {
        p->refusals++;
        if (push->state == PEER_DONE) return;
        push->state = message[9] == 0 ? PEER_WAITING : PEER_DONE;
        push->since = now + 5000;
        p->done_count += message[9] != 0;
    }
}

static void peer_subscribed(struct peer *p, uint32_t channel, char version) {
    uint8_t message[128] = {2};
    uint32_t n = 1 + peer_varint(message + 1, channel);
    char uri[32];
    int len = snprintf(uri, sizeof uri, "https://p.example/%u%c", (unsigned)channel, version);
    message[n++] = (uint8_t)len;
    memcpy(message + n, uri, (size_t)len);
    n += (uint32_t)len;
    message[n++] = 65;
    n += 65;
    message[n++] = 16;
    n += 16;
    if (n <= p->largest) peer_say(p, 0, message, n);
}

static void peer_take_message(struct peer *p, const uint8_t *message, uint32_t n, uint32_t now) {
    const uint8_t *at = message + 1, *end = message + n;
    uint8_t channel_message[4] = {4};
    uint32_t number;
    REQUIRE(n >= 1 && message[0] <= 8);
    if (!p->attached && message[0] != 0) return;
    switch (message[0]) {
    case 0: if (!p->attached) peer_attach(p, at, end); break;
    case 1:
    case 2: peer_answer(p, message, n, now); break;
    case 7: p->awakes++, p->status_due = true; REQUIRE(n == 1); break;
    case 8: peer_say_status(p, 7); REQUIRE(n == 1); break;
    default:
        number = (uint32_t)peer_read_varint(&at, end);
        REQUIRE(at == end);
        if (message[0] == 3) peer_subscribed(p, number, 'a');
        if (message[0] == 5) peer_subscribed(p, number, 'b');
        if (message[0] == 4) peer_say(p, 0, channel_message, 1 + peer_varint(channel_message + 1, number));
        if (message[0] == 6) p->asleep = true;
    }
}

static void peer_take_messages(struct peer *p, uint32_t now) {
    while (p->open && p->rx_end > p->rx_taken) {
        uint32_t n = p->rx[p->rx_taken];
        REQUIRE(n < 128);
        if (p->rx_end - p->rx_taken - 1 < n) return;
        peer_take_message(p, p->rx + p->rx_taken + 1, n, now);
        p->rx_taken += n + 1;
        if (p->rx_taken + PEER_WINDOW - p->rx_told >= PEER_WINDOW / 2) p->ack_due = true;
    }
}

/* ---- Frames of the device ---- */

static void peer_note_number(struct peer *p, uint8_t number) {
    int8_t ahead = (int8_t)(uint8_t)(number - p->newest);
    if (!p->heard) {
        p->newest = number;
        p->heard = true;
    } else if (ahead > 0) {
        p->before = (uint16_t)(ahead > 16 ? 0 : ((uint32_t)p->before << ahead) | 1u << (ahead - 1));
        p->newest = number;
    } else if (ahead < 0 && ahead >= -16) {
        p->before |= (uint16_t)(1u << (-ahead - 1));
    }
}

static void peer_settle(struct peer *p, uint8_t number, uint8_t state) {
    struct peer_frame *frame = &p->flight[number];
    struct peer_tx *tx = &p->tx[frame->stream];
    memset(tx->state + frame->at, state, frame->len);
    frame->active = false;
    while (p->oldest != p->next && !p->flight[p->oldest].active) p->oldest++;
    while (tx->low < tx->next && tx->state[tx->low] == PEER_ARRIVED) tx->low++;
}

static void peer_take_ack(struct peer *p, uint8_t newest, uint16_t before, uint32_t now) {
    REQUIRE((int8_t)(uint8_t)(newest - p->next) < 0); /* it names what was sent */
    for (uint8_t n = p->oldest; n != p->next && (int8_t)(uint8_t)(newest - n) >= 0; n++) {
        uint8_t back = newest - n;
        if (!p->flight[n].active) continue;
        bool arrived = back == 0 || (before >> (back - 1) & 1) != 0;
        peer_settle(p, n, arrived ? PEER_ARRIVED : PEER_LOST);
        if (!arrived) continue;
        p->timer_at = p->arrived_at = now;
        p->single = false;
        p->timer_ms = 200;
    }
}

static void peer_take_limit(struct peer *p, int stream, uint16_t limit) {
    struct peer_tx *tx = &p->tx[stream];
    uint16_t ahead = (uint16_t)(limit - (uint16_t)tx->limit);
    REQUIRE(ahead < 32768 || ahead > 65536 - 20000);
    if (ahead < 32768) tx->limit += ahead;
    REQUIRE(tx->limit <= tx->next + (stream == 0 ? p->device_window : p->urgent));
}

static void peer_take_data(struct peer *p, const uint8_t *frame, size_t n, uint32_t now) {
    size_t at = 4;
    uint32_t offset = p->rx_end + (uint32_t)(int16_t)(uint16_t)(peer_get(frame + 2, 2) - p->rx_end);
    REQUIRE((frame[0] & 1) == 0);
    if ((frame[0] & 2) != 0) at += 3;
    if ((frame[0] & 4) != 0) at += 2;
    REQUIRE(n >= at + 4);
    uint32_t len = (uint32_t)(n - at - 4);
    REQUIRE(offset + len <= p->rx_told); /* credit is never overrun */
    memcpy(p->rx + offset, frame + at, len);
    memset(p->rx_have + offset, 1, len);
    while (p->rx_have[p->rx_end] != 0) p->rx_end++;
    peer_note_number(p, frame[1]);
    p->ack_due = true;
    if ((frame[0] & 4) != 0) peer_take_limit(p, 0, (uint16_t)peer_get(frame + at - 2, 2));
    if ((frame[0] & 2) != 0) peer_take_ack(p, frame[4], (uint16_t)peer_get(frame + 5, 2), now);
}

static void peer_take_hello(struct peer *p, const uint8_t *frame, size_t n, uint32_t now) {
    uint32_t boot = peer_get(frame + 2, 4);
    if (frame[1] != 1) {
        p->version = frame[1];
        return;
    }
    REQUIRE(n == 18 && boot != 0);
    if ((frame[0] & 1) != 0) p->hello_due = true;
    if (p->open && boot != p->device) peer_leave(p);
    if (p->open) return;
    p->device = boot;
    p->device_mtu = (uint16_t)peer_get(frame + 10, 2);
    p->device_window = (uint16_t)peer_get(frame + 12, 2);
    if (peer_get(frame + 6, 4) == p->boot) peer_open(p, now);
}

static void peer_take_frame(struct peer *p, const uint8_t *frame, size_t n, uint32_t now) {
    uint8_t kind = n > 0 ? frame[0] & 0xf0 : 0;
    bool in_session = kind == 0x20 || kind == 0x30;
    if (n < 6 || (frame[0] & 8) == 0 || (in_session && !p->open)) return;
    if (~peer_crc(in_session ? peer_session_crc(p) : 0xffffffffu, frame, n - 4) != peer_get(frame + n - 4, 4)) {
        p->frames_bad++;
        return;
    }
    p->frames_in++;
    if (p->asleep) p->timer_at = p->arrived_at = now;
    p->asleep = false;
    if (kind == 0x10) peer_take_hello(p, frame, n, now);
    if (kind == 0x20) peer_take_data(p, frame, n, now);
    if (kind == 0x30) {
        REQUIRE(n == 10);
        peer_take_limit(p, frame[0] & 1, (uint16_t)peer_get(frame + 4, 2));
        peer_take_ack(p, frame[1], (uint16_t)peer_get(frame + 2, 2), now);
    }
    if (kind == 0x40) p->probes_answered += (frame[0] & 1) != 0;
    peer_take_messages(p, now);
}

static void peer_feed(struct peer *p, const uint8_t *octets, size_t n, uint32_t now) {
    uint8_t frame[1200];
    for (size_t i = 0; i < n; i++) {
        if (octets[i] != 0) {
            if (p->encoded_len < sizeof p->encoded) p->encoded[p->encoded_len++] = octets[i];
            continue;
        }
        size_t len = p->encoded_len < p->mtu ? peer_decode(p->encoded, p->encoded_len, frame) : 0;
        p->encoded_len = 0;
        peer_take_frame(p, frame, len, now);
    }
}

/* ---- Sending ---- */

static size_t peer_finish(struct peer *p, uint8_t *frame, size_t n, bool in_session, uint8_t *out) {
    uint32_t crc = ~peer_crc(in_session ? peer_session_crc(p) : 0xffffffffu, frame, n);
    n += peer_set(frame + n, crc, 4);
    p->frames_out++;
    return peer_encode(frame, n, out);
}

static size_t peer_send_hello(struct peer *p, uint32_t now, uint8_t *out) {
    uint8_t frame[18] = {p->open ? 0x10 : 0x11, 1};
    peer_set(frame + 2, p->boot, 4);
    peer_set(frame + 6, p->device, 4);
    peer_set(frame + 10, p->mtu, 2);
    peer_set(frame + 12, PEER_WINDOW, 2);
    p->hello_due = false;
    p->hello_at = now;
    return peer_finish(p, frame, 14, false, out);
}

static size_t peer_send_ack(struct peer *p, uint8_t *out) {
    uint8_t frame[10] = {0x30, p->newest};
    p->rx_told = p->rx_taken + PEER_WINDOW;
    peer_set(frame + 2, p->before, 2);
    peer_set(frame + 4, p->rx_told, 2);
    p->ack_due = false;
    return peer_finish(p, frame, 6, true, out);
}

/* The next octets of a stream: lost ones first. None: nothing may be sent. */
static uint32_t peer_choose(struct peer_tx *tx, uint32_t max, uint32_t *at) {
    uint32_t len = 0;
    for (*at = tx->low; *at < tx->next && tx->state[*at] != PEER_LOST;) ++*at;
    if (*at < tx->next) {
        while (len < max && *at + len < tx->next && tx->state[*at + len] == PEER_LOST) len++;
        return len;
    }
    while (len < max && *at + len < tx->end && *at + len < tx->limit) len++;
    tx->next += len;
    return len;
}

static size_t peer_send_data(struct peer *p, int stream, uint32_t now, bool credit, uint8_t *out) {
    struct peer_tx *tx = &p->tx[stream];
    uint32_t at, max = p->device_mtu < p->mtu ? p->device_mtu : p->mtu, n = 4;
    uint8_t frame[1100] = {stream == 1 ? 0x21 : 0x20, p->next};
    bool acks = p->ack_due;
    max = max - 2 - (max > 256 ? 4 : 0) - 8 - (acks ? 5 : 0);
    uint32_t len = peer_choose(tx, max, &at);
    if (len == 0 && !credit) return 0;
    if (len == 0) at = tx->limit;
    peer_set(frame + 2, at, 2);
    if (acks) {
        frame[0] |= 6;
        frame[n++] = p->newest;
        n += peer_set(frame + n, p->before, 2);
        p->rx_told = p->rx_taken + PEER_WINDOW;
        n += peer_set(frame + n, p->rx_told, 2);
        p->ack_due = false;
    }
    memcpy(frame + n, tx->octets + at, len);
    memset(tx->state + at, PEER_IN_FLIGHT, len);
    if (p->oldest == p->next) p->timer_at = now;
    p->flight[p->next] = (struct peer_frame){true, (uint8_t)stream, at, len};
    p->next++;
    p->single_used = true;
    return peer_finish(p, frame, n + len, true, out);
}

static bool peer_lacks_credit(const struct peer *p, int stream) {
    const struct peer_tx *tx = &p->tx[stream];
    return p->oldest == p->next && tx->next == tx->limit && tx->end > tx->next && tx->low == tx->next;
}

static void peer_timers(struct peer *p, uint32_t now) {
    if (!p->open && now - p->hello_at >= 1000) p->hello_due = true;
    if (!p->open || p->asleep) return;
    if (p->oldest == p->next) {
        if (p->tx[0].low == p->tx[0].next && p->tx[1].low == p->tx[1].next) p->arrived_at = now;
        return;
    }
    if (now - p->arrived_at >= 30000) {
        peer_leave(p);
    } else if (now - p->timer_at >= p->timer_ms) {
        p->timer_ms = p->timer_ms > 4000 ? 8000 : p->timer_ms * 2;
        p->timer_at = now;
        p->single = true;
        p->single_used = false;
        peer_settle(p, p->oldest, PEER_LOST);
    }
}

static size_t peer_poll(struct peer *p, uint32_t now, uint8_t *out) {
    peer_timers(p, now);
    peer_serve(p, now);
    if (p->delimiter_due) {
        p->delimiter_due = false;
        out[0] = 0;
        return 1;
    }
    if (p->hello_due) return peer_send_hello(p, now, out);
    if (p->probe_due) {
        p->probe_due = false;
        return peer_finish(p, p->probe, p->probe_len, false, out);
    }
    if (!p->open) return 0;
    bool may_send = !p->asleep && (uint8_t)(p->next - p->oldest) < 16 && !(p->single && p->single_used);
    for (int s = 1; s >= 0 && may_send; s--) {
        bool credit = peer_lacks_credit(p, s) && now - p->credit_at >= 2000;
        if (credit) p->credit_at = now;
        size_t n = peer_send_data(p, s, now, credit, out);
        if (n > 0) return n;
    }
    return p->ack_due ? peer_send_ack(p, out) : 0;
}

#endif
