/* Host test of fieldgate_link.h: the examples of the specification, a gateway and a device over a bad line with a clock
 * that the test moves, and hostile octets. Built once for each configuration: `make` here. */
#define FIELDGATE_LINK_IMPLEMENTATION
#include "../fieldgate_link.h"

#include "peer.h"

static uint32_t random_state;

static uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return (uint32_t)((uint64_t)random_state * n >> 32);
}

static bool chance(uint32_t per_million) { return random_below(1000000) < per_million; }

/* ---- A line in one direction ---- */

struct line {
    uint8_t octets[1 << 16];
    uint32_t due[1 << 16];
    uint32_t head, tail; /* count up */
    uint32_t free_at_us, baud, latency_ms;
    uint32_t lose_octet, damage_octet, lose_frame, double_frame; /* per million */
    bool cut;
};

static void line_put(struct line *line, uint8_t octet, uint32_t due) {
    REQUIRE(line->tail - line->head < 1 << 16);
    if (chance(line->lose_octet)) return;
    if (chance(line->damage_octet)) octet ^= (uint8_t)(1 << random_below(8));
    line->octets[line->tail & 0xffff] = octet;
    line->due[line->tail++ & 0xffff] = due;
}

static bool line_is_free(const struct line *line, uint32_t now) { return line->free_at_us <= now * 1000; }

static void line_send(struct line *line, const uint8_t *octets, size_t n, uint32_t now) {
    uint32_t us = line->free_at_us > now * 1000 ? line->free_at_us : now * 1000;
    int copies = line->cut || chance(line->lose_frame) ? 0 : chance(line->double_frame) ? 2 : 1;
    for (int copy = 0; copy < copies; copy++) {
        for (size_t i = 0; i < n; i++) line_put(line, octets[i], us / 1000 + line->latency_ms);
    }
    line->free_at_us = us + (uint32_t)(n * 10000000u / line->baud);
}

/* What has arrived, in a piece of any length. */
static size_t line_take(struct line *line, uint8_t out[64], uint32_t now) {
    size_t n = 0, most = 1 + random_below(64);
    while (n < most && line->head != line->tail && line->due[line->head & 0xffff] <= now) {
        out[n++] = line->octets[line->head++ & 0xffff];
    }
    return n;
}

/* ---- A device with an application, and its gateway ---- */

#define MESSAGES 400

struct late_ack {
    uint8_t id[8];
    uint32_t at;
};

struct world {
    struct fieldgate_link link;
    struct peer peer;
    struct line to_device, to_gateway;
    uint32_t now, device_wakes_at, boots;

    uint32_t count, late_per_million, refuse_per_million;
    bool accepted[MESSAGES], handed[MESSAGES];
    int last[2][4];
    bool ordered; /* no message was refused or came late */
    uint8_t kept[MESSAGES][8]; /* what a device keeps over power loss */
    uint32_t kept_count;
    struct late_ack late[MESSAGES];
    uint32_t late_count;

    uint32_t ups, downs, pushes, subscribed, unsubscribed, statuses, refused, versions;
    uint8_t waiting, why;
};

static void message_id(uint32_t index, uint8_t id[8]) {
    memset(id, 0, 8);
    peer_set(id + 2, index, 4);
}

static uint16_t message_len(uint32_t index) {
    uint32_t largest = FIELDGATE_LINK_WINDOW - 2 > 4096 ? 4096 : FIELDGATE_LINK_WINDOW - 2;
    if (index % 3 == 2 && FIELDGATE_LINK_URGENT > 0) largest = FIELDGATE_LINK_URGENT - 2;
    return (uint16_t)((index * 2654435761u >> 8) % (largest - 19 - 1));
}

static uint8_t message_octet(uint32_t index, uint32_t i) { return (uint8_t)((index * 31 + i) % 7 == 0 ? 0 : index + i); }

static void add_messages(struct world *w, uint32_t n) {
    uint8_t id[8], body[4096];
    while (n-- > 0) {
        uint32_t index = w->count++;
        REQUIRE(index < MESSAGES);
        for (uint32_t i = 0; i < message_len(index); i++) body[i] = message_octet(index, i);
        message_id(index, id);
        peer_add_push(&w->peer, id, (uint16_t)(1 + index % 3), index % 3 == 2 && FIELDGATE_LINK_URGENT > 0, body,
                      message_len(index));
    }
}

static void accept(struct world *w, const uint8_t *id) {
    w->accepted[peer_get(id + 2, 4)] = true;
    memcpy(w->kept[w->kept_count++], id, 8);
    fieldgate_link_ack(&w->link, id);
}

static void on_push(struct world *w, const struct fieldgate_link_event *event) {
    uint32_t index = peer_get(event->id + 2, 4);
    REQUIRE(index < w->count && !w->accepted[index] && !w->handed[index]);
    REQUIRE(event->len == message_len(index) && event->channel == 1 + index % 3 && event->age == 3);
    for (uint32_t i = 0; i < event->len; i++) REQUIRE(event->body[i] == message_octet(index, i));
    int *last = &w->last[event->urgent][event->channel];
    REQUIRE(!w->ordered || (int)index > *last);
    *last = (int)index;
    w->pushes++;
    if (chance(w->refuse_per_million)) {
        w->ordered = false;
        REQUIRE(fieldgate_link_refuse(&w->link, event->id, FIELDGATE_LINK_FULL));
        return;
    }
    w->handed[index] = true;
    if (chance(w->late_per_million)) {
        w->ordered = false;
        memcpy(w->late[w->late_count].id, event->id, 8);
        w->late[w->late_count++].at = w->now + random_below(25000);
        return;
    }
    accept(w, event->id);
}

static void on_event(void *context, const struct fieldgate_link_event *event) {
    struct world *w = context;
    switch (event->kind) {
    case FIELDGATE_LINK_UP: w->ups++; break;
    case FIELDGATE_LINK_DOWN: w->downs++, w->why = event->why; break;
    case FIELDGATE_LINK_PUSH: on_push(w, event); break;
    case FIELDGATE_LINK_SUBSCRIBED: w->subscribed++; break;
    case FIELDGATE_LINK_REFUSED: w->refused++; break;
    case FIELDGATE_LINK_UNSUBSCRIBED: w->unsubscribed++; break;
    case FIELDGATE_LINK_STATUS: w->statuses++, w->waiting = event->waiting; break;
    case FIELDGATE_LINK_OTHER_VERSION: w->versions++; break;
    }
}

static void start_device(struct world *w) {
    uint32_t first = w->kept_count > FIELDGATE_LINK_IDS ? w->kept_count - FIELDGATE_LINK_IDS : 0;
    REQUIRE(fieldgate_link_start(&w->link, "meter-7", ++w->boots * 1000, true, on_event, w));
    for (uint32_t i = first; i < w->kept_count; i++) fieldgate_link_remember(&w->link, w->kept[i]);
    memset(w->handed, 0, sizeof w->handed);
    w->late_count = 0;
    w->device_wakes_at = w->now;
}

static struct world *world_new(uint32_t baud) {
    struct world *w = calloc(1, sizeof *w);
    REQUIRE(w != NULL);
    w->now = 1000;
    w->to_device.baud = w->to_gateway.baud = baud;
    w->to_device.latency_ms = w->to_gateway.latency_ms = 1;
    w->ordered = true;
    memset(w->last, -1, sizeof w->last);
    peer_init(&w->peer, 0x01020304, 256, "meter-7");
    start_device(w);
    return w;
}

static void world_free(struct world *w) {
    peer_free(&w->peer);
    free(w);
}

static void answer_late(struct world *w) {
    for (uint32_t i = 0; i < w->late_count; i++) {
        if (w->late[i].at > w->now) continue;
        accept(w, w->late[i].id);
        w->late[i--] = w->late[--w->late_count];
        w->device_wakes_at = w->now;
    }
}

/* A millisecond. The device is polled only when something came or its own timeout says so. */
static void step(struct world *w) {
    uint8_t octets[1100];
    size_t n;
    w->now++;
    if (line_is_free(&w->to_device, w->now)) {
        n = peer_poll(&w->peer, w->now, octets);
        REQUIRE(n <= 20 || n <= w->peer.device_mtu);
        if (n > 0) line_send(&w->to_device, octets, n, w->now);
    }
    n = line_take(&w->to_device, octets, w->now);
    fieldgate_link_feed(&w->link, octets, n, w->now);
    if (n > 0) w->device_wakes_at = w->now;
    answer_late(w);
    if (w->now >= w->device_wakes_at && line_is_free(&w->to_gateway, w->now)) {
        n = fieldgate_link_poll(&w->link, w->now, octets);
        REQUIRE(n <= FIELDGATE_LINK_MTU);
        if (n > 0) line_send(&w->to_gateway, octets, n, w->now);
        uint32_t timeout = fieldgate_link_poll_timeout(&w->link, w->now);
        w->device_wakes_at = timeout > UINT32_MAX - w->now ? UINT32_MAX : w->now + timeout;
    }
    n = line_take(&w->to_gateway, octets, w->now);
    peer_feed(&w->peer, octets, n, w->now);
}

static void run(struct world *w, uint32_t ms) {
    while (ms-- > 0) step(w);
}

static bool all_done(const struct world *w) { return w->peer.done_count == w->count; }

static void run_until_done(struct world *w, uint32_t most_ms) {
    uint32_t end = w->now + most_ms;
    while (!all_done(w)) {
        REQUIRE(w->now < end);
        step(w);
    }
}

static void all_accepted(const struct world *w) {
    for (uint32_t i = 0; i < w->count; i++) REQUIRE(w->accepted[i]);
}

/* ---- The examples of the specification ---- */

static size_t encode(const uint8_t *frame, size_t n, uint8_t *out) {
    struct fgl_writer writer = {out, 0, 0, 0, 0};
    for (size_t i = 0; i < n; i++) fgl_put_encoded(&writer, frame[i]);
    out[writer.len++] = 0;
    return writer.len;
}

static void decodes_to(const uint8_t *encoded, size_t n, const uint8_t *frame, size_t len) {
    static struct fieldgate_link l;
    REQUIRE(fieldgate_link_start(&l, "d", 1, false, on_event, NULL));
    fieldgate_link_feed(&l, encoded, n - 1, 0);
    REQUIRE(!l.damaged && l.block_left == 0 && l.frame_len == len && memcmp(l.frame, frame, len) == 0);
}

static void test_encoding(void) {
    uint8_t out[600], back[600], long_frame[300];
    const uint8_t frame[] = {0x11, 0x22, 0x00, 0x33}, zero[] = {0};
    REQUIRE(encode(frame, 4, out) == 6 && memcmp(out, "\x03\x11\x22\x02\x33", 6) == 0);
    decodes_to(out, 6, frame, 4);
    REQUIRE(encode(zero, 1, out) == 3 && memcmp(out, "\x01\x01", 3) == 0);
    decodes_to(out, 3, zero, 1);
    for (int i = 0; i < 254; i++) long_frame[i] = (uint8_t)(i + 1);
    REQUIRE(encode(long_frame, 254, out) == 256 && out[0] == 0xff && out[255] == 0);
    if (FIELDGATE_LINK_MTU >= 256) decodes_to(out, 256, long_frame, 254);
    for (int round = 0; round < 2000; round++) {
        size_t n = random_below(300), len;
        for (size_t i = 0; i < n; i++) long_frame[i] = chance(8000) ? 0 : (uint8_t)(1 + random_below(255));
        len = encode(long_frame, n, out);
        REQUIRE(n == 0 || len <= n + (n + 253) / 254 + 1);
        REQUIRE(memchr(out, 0, len) == out + len - 1);
        REQUIRE(peer_decode(out, len - 1, back) == n && memcmp(back, long_frame, n) == 0);
        if (len <= FIELDGATE_LINK_MTU && n > 0) decodes_to(out, len, long_frame, n);
    }
}

static void test_checksum(void) {
    REQUIRE(~fgl_crc(FGL_CRC_START, (const uint8_t *)"123456789", 9) == 0xe3069283u);
    REQUIRE(~peer_crc(0xffffffffu, (const uint8_t *)"123456789", 9) == 0xe3069283u);
}

static void test_frame_sizes(void) {
    REQUIRE(fgl_raw_max(20) - 8 == 10 && fgl_raw_max(64) - 8 == 54);
    REQUIRE(fgl_raw_max(256) - 8 == 246 && fgl_raw_max(1024) - 8 == 1010);
}

/* ---- Sessions ---- */

static void test_good_line(void) {
    struct world *w = world_new(115200);
    add_messages(w, 40);
    run_until_done(w, 120000);
    all_accepted(w);
    run(w, 100);
    REQUIRE(w->ups == 1 && w->downs == 0 && w->peer.traits == 1 && w->statuses == 1);
    REQUIRE(w->pushes == w->count && fieldgate_link_is_settled(&w->link));
    uint32_t frames = w->peer.frames_in;
    run(w, 100000); /* an idle session is silent */
    REQUIRE(w->peer.frames_in == frames && w->ups == 1);
    world_free(w);
}

static void spoil(struct world *w) {
    struct line *lines[2] = {&w->to_device, &w->to_gateway};
    for (int i = 0; i < 2; i++) {
        lines[i]->latency_ms = random_below(120);
        lines[i]->lose_octet = random_below(3) == 0 ? random_below(2000) : 0;
        lines[i]->damage_octet = random_below(3) == 0 ? random_below(2000) : 0;
        lines[i]->lose_frame = random_below(2) == 0 ? random_below(200000) : 0;
        lines[i]->double_frame = random_below(2) == 0 ? random_below(200000) : 0;
    }
}

/* Whatever the line does: each message is accepted once, in order, whole. */
static void test_bad_line(uint32_t seed) {
    static const uint32_t bauds[] = {9600, 57600, 115200, 921600};
    random_state = seed * 7919 + 1;
    struct world *w = world_new(bauds[random_below(4)]);
    spoil(w);
    w->late_per_million = random_below(3) == 0 ? 200000 : 0;
    w->refuse_per_million = random_below(3) == 0 ? 50000 : 0;
    add_messages(w, 8 + random_below(30));
    run_until_done(w, 3000000);
    all_accepted(w);
    world_free(w);
}

/* Either side starts anew at any time. */
static uint32_t test_resets(uint32_t seed) {
    random_state = seed * 104729 + 1;
    struct world *w = world_new(115200);
    uint32_t resets = 0, ups;
    spoil(w);
    add_messages(w, 60);
    for (uint32_t end = w->now + 3000000; !all_done(w);) {
        REQUIRE(w->now < end);
        run(w, 1 + random_below(700));
        if (resets++ > 15) continue;
        if (random_below(2) == 0) {
            start_device(w);
            w->ordered = false;
        } else {
            peer_leave(&w->peer);
            w->peer.boot += 100;
        }
    }
    all_accepted(w);
    ups = w->ups;
    world_free(w);
    return ups;
}

/* The ids that are kept suffice when every acknowledgement is lost with its session. */
static void test_copies(void) {
    struct world *w = world_new(115200);
    add_messages(w, 6);
    for (int round = 0; round < 3; round++) {
        while (w->pushes < 1 || w->kept_count == 0) step(w);
        w->to_gateway.cut = true;
        run(w, 3000);
        peer_leave(&w->peer);
        w->to_gateway.cut = false;
        run(w, 300);
    }
    run_until_done(w, 60000);
    all_accepted(w);
    REQUIRE(w->pushes == w->count && w->downs >= 3);
    world_free(w);
}

static void test_silence(void) {
    struct world *w = world_new(115200);
    run(w, 500);
    w->to_device.cut = true;
    REQUIRE(fieldgate_link_ask(&w->link));
    w->device_wakes_at = w->now;
    run(w, 29000);
    REQUIRE(w->downs == 0);
    run(w, 2000);
    REQUIRE(w->downs == 1 && w->why == FIELDGATE_LINK_PEER_SILENT);
    w->to_device.cut = false;
    run(w, 3000);
    REQUIRE(fieldgate_link_is_open(&w->link) && w->ups == 2);
    world_free(w);
}

/* The gateway sends nothing to a device that sleeps; what waits comes when it is awake, and then a Status of 0. */
static void test_sleep(void) {
    struct world *w = world_new(115200);
    add_messages(w, 2);
    run_until_done(w, 5000);
    REQUIRE(fieldgate_link_sleep(&w->link, 600));
    w->device_wakes_at = w->now;
    while (!fieldgate_link_is_settled(&w->link)) step(w);
    uint32_t frames = w->peer.frames_out, ups = w->ups;
    add_messages(w, 5);
    for (int i = 0; i < 600000; i++, w->now++) {
        uint8_t octets[1100];
        REQUIRE(peer_poll(&w->peer, w->now, octets) == 0);
    }
    REQUIRE(w->peer.frames_out == frames && w->peer.asleep);
    w->waiting = 99;
    w->to_device.free_at_us = w->to_gateway.free_at_us = 0;
    REQUIRE(fieldgate_link_awake(&w->link));
    w->device_wakes_at = w->now;
    run_until_done(w, 20000);
    run(w, 500);
    REQUIRE(w->waiting == 0 && w->ups == ups && w->peer.awakes == 1);
    all_accepted(w);
    world_free(w);
}

static void test_subscriptions(void) {
    struct world *w = world_new(115200);
    REQUIRE(!fieldgate_link_subscribe(&w->link, 5)); /* no session yet */
    run(w, 500);
    REQUIRE(!fieldgate_link_subscribe(&w->link, 0));
    REQUIRE(fieldgate_link_subscribe(&w->link, 5) && fieldgate_link_rotate(&w->link, 65535));
    REQUIRE(fieldgate_link_unsubscribe(&w->link, 300) && fieldgate_link_ask(&w->link));
    w->device_wakes_at = w->now;
    run(w, 500);
    REQUIRE(w->subscribed == (FIELDGATE_LINK_WINDOW > 150 ? 2 : 0) && w->unsubscribed == 1 && w->waiting == 7);
    world_free(w);
}

static void test_unknown_device(void) {
    struct world *w = world_new(115200);
    w->peer.expected = "another";
    run(w, 500);
    REQUIRE(w->refused == 1 && w->downs == 0);
    run(w, 60000);
    REQUIRE(w->ups == 2 && w->why == FIELDGATE_LINK_RESTARTED);
    world_free(w);
}

/* The gateway takes nothing for a while, and the ack with its new limit is lost. */
static void test_credit(void) {
    struct world *w = world_new(115200);
    uint32_t asked = 0, before;
    run(w, 500);
    peer_take_limit(&w->peer, 0, w->peer.tx[0].limit & 0xffff);
    w->link.tx_limit = w->link.tx_next; /* as if the gateway's room had ended here */
    REQUIRE(fieldgate_link_ask(&w->link));
    w->device_wakes_at = w->now;
    w->to_device.cut = true;
    before = w->peer.frames_in;
    run(w, 1900);
    REQUIRE(w->peer.frames_in == before);
    run(w, 10000);
    asked = w->peer.frames_in - before;
    REQUIRE(asked >= 2 && asked <= 5 && w->statuses == 1);
    w->to_device.cut = false;
    run(w, 10000);
    REQUIRE(w->statuses == 2 && w->downs == 0);
    world_free(w);
}

static void test_probe(void) {
    struct world *w = world_new(115200);
    w->peer.probe[0] = 0x40;
    w->peer.probe[1] = 0x5a;
    w->peer.probe_len = 2 + FIELDGATE_LINK_PROBE;
    w->peer.probe_due = true;
    run(w, 500);
    REQUIRE(w->peer.probes_answered == 1);
    world_free(w);
}

static void feed_frame(struct world *w, uint8_t *frame, size_t n, bool in_session) {
    uint8_t out[1200];
    size_t len = peer_finish(&w->peer, frame, n, in_session, out);
    fieldgate_link_feed(&w->link, out, len, w->now);
    w->device_wakes_at = w->now;
}

static void test_broken_rules(void) {
    struct world *w = world_new(115200);
    uint8_t hello[18] = {0x11, 2};
    run(w, 500);
    feed_frame(w, hello, 8, false);
    REQUIRE(w->versions == 1 && w->downs == 0);
    uint8_t data[16] = {0x20, 200};
    peer_set(data + 2, w->peer.tx[0].next, 2);
    data[4] = 0xff;
    data[5] = 0x7f;
    feed_frame(w, data, 6, true);
    REQUIRE(w->downs == 1 && w->why == FIELDGATE_LINK_PEER_BROKE_RULES);
    run(w, 3000);
    REQUIRE(fieldgate_link_is_open(&w->link));
    world_free(w);
}

static void test_names(void) {
    static struct fieldgate_link l;
    REQUIRE(!fieldgate_link_start(&l, "", 1, false, on_event, NULL));
    REQUIRE(!fieldgate_link_start(&l, "a b", 1, false, on_event, NULL));
    REQUIRE(!fieldgate_link_start(&l, "a.23456789_123456789-123456789012", 1, false, on_event, NULL));
    REQUIRE(fieldgate_link_start(&l, "a.23456789_123456789-12345678901", 1, false, on_event, NULL) ==
            (FIELDGATE_LINK_TX > 44));
}

/* ---- Octet by octet: a gateway that sends what the test says, and reads each frame of the device ---- */

struct hand {
    struct fieldgate_link link;
    struct peer gateway; /* for its identifiers, and to encode */
    uint8_t frame[1100]; /* the last of the device, decoded */
    size_t len;
    uint32_t now, downs, pushes, answer; /* answer: 0 none, 1 ack */
};

static void on_hand_event(void *context, const struct fieldgate_link_event *event) {
    struct hand *h = context;
    if (event->kind == FIELDGATE_LINK_DOWN) h->downs++;
    if (event->kind != FIELDGATE_LINK_PUSH) return;
    h->pushes++;
    if (h->answer == 1) fieldgate_link_ack(&h->link, event->id);
}

/* The kind of the next frame with its flags, 0 if there is none. */
static uint8_t hand_poll(struct hand *h) {
    uint8_t octets[1100];
    size_t n = fieldgate_link_poll(&h->link, h->now, octets);
    if (n == 1) n = fieldgate_link_poll(&h->link, h->now, octets); /* the delimiter of the connection */
    REQUIRE(n <= 20 || h->gateway.device_mtu == 0 || n <= h->gateway.device_mtu);
    h->len = n == 0 ? 0 : peer_decode(octets, n - 1, h->frame);
    if (n == 0) return 0;
    bool in_session = h->frame[0] >= 0x20 && h->frame[0] < 0x40;
    uint32_t crc = in_session ? peer_session_crc(&h->gateway) : 0xffffffffu;
    REQUIRE(~peer_crc(crc, h->frame, h->len - 4) == peer_get(h->frame + h->len - 4, 4));
    return h->frame[0];
}

static void hand_send(struct hand *h, uint8_t *frame, size_t n) {
    uint8_t out[1200];
    bool in_session = frame[0] >= 0x20 && frame[0] < 0x40;
    size_t len = peer_finish(&h->gateway, frame, n, in_session, out);
    fieldgate_link_feed(&h->link, out, len, h->now);
}

static void hand_ack(struct hand *h, uint8_t newest, uint16_t before, uint16_t limit) {
    uint8_t frame[10] = {0x30, newest};
    peer_set(frame + 2, before, 2);
    peer_set(frame + 4, limit, 2);
    hand_send(h, frame, 6);
}

static void hand_data(struct hand *h, uint8_t number, uint16_t offset, const void *payload, size_t n) {
    uint8_t frame[1100] = {0x20, number};
    peer_set(frame + 2, offset, 2);
    memcpy(frame + 4, payload, n);
    hand_send(h, frame, 4 + n);
}

static void hand_hello(struct hand *h, uint16_t mtu, uint16_t window) {
    uint8_t hello[18] = {0x10, 1};
    while (hand_poll(h) != 0) {}
    peer_set(hello + 2, h->gateway.boot, 4);
    peer_set(hello + 6, h->link.boot, 4);
    peer_set(hello + 10, mtu, 2);
    peer_set(hello + 12, window, 2);
    hand_send(h, hello, 14);
    h->gateway.device = h->link.boot;
    h->gateway.device_mtu = mtu;
    REQUIRE(fieldgate_link_is_open(&h->link));
}

/* A session whose Attach has arrived: the next number is `link.next`, the next offset `link.tx_next`. */
static struct hand *hand_new(uint16_t mtu) {
    struct hand *h = calloc(1, sizeof *h);
    REQUIRE(h != NULL && fieldgate_link_start(&h->link, "d", 77, false, on_hand_event, h));
    h->now = 0xfffffff0u; /* the clock goes round */
    h->gateway.boot = 99;
    hand_hello(h, mtu, 256);
    while ((hand_poll(h) & 0xf0) == 0x20) hand_ack(h, h->frame[1], 0, 256);
    REQUIRE(fieldgate_link_is_settled(&h->link));
    return h;
}

static void test_attach(void) {
    struct hand *h = calloc(1, sizeof *h);
    REQUIRE(h != NULL && fieldgate_link_start(&h->link, "d", 77, true, on_hand_event, h));
    const uint8_t id[8] = {1, 2, 3};
    fieldgate_link_ack(&h->link, id); /* before there is a session: goes behind Attach */
    h->gateway.boot = 99;
    hand_hello(h, 64, 256);
    REQUIRE(hand_poll(h) == 0x28 && h->frame[1] == 0 && h->frame[4 + 1] == 0 && h->frame[4 + 3] == 'd');
    uint8_t attach = h->frame[4];
    while (h->len < 4u + attach + 11 + 4) {
        size_t had = h->len - 4; /* a small MTU cuts the Ack: put the pieces together */
        uint8_t first[64];
        memcpy(first, h->frame, had);
        REQUIRE(hand_poll(h) == 0x28);
        memmove(h->frame + had, h->frame + 4, h->len - 4);
        h->len += had - 4;
        memcpy(h->frame, first, had);
    }
    const uint8_t *ack = h->frame + 4 + attach + 1;
    REQUIRE(ack[0] == 9 && ack[1] == 1 && memcmp(ack + 2, id, 8) == 0);
    free(h);
}

/* Loss is noticed by a newer number, without the timer; what is sent again has a new number. */
static void test_loss_by_newer(void) {
    struct hand *h = hand_new(20);
    uint8_t first = h->link.next, payload[16];
    for (uint16_t i = 0; i < 5; i++) REQUIRE(fieldgate_link_subscribe(&h->link, 1000 + i));
    REQUIRE(hand_poll(h) == 0x28 && h->frame[1] == first);
    uint16_t offset = (uint16_t)peer_get(h->frame + 2, 2);
    size_t len = h->len - 8;
    memcpy(payload, h->frame + 4, len);
    uint8_t sent = 1;
    while (hand_poll(h) != 0) sent++;
    REQUIRE(sent == 2 && FIELDGATE_LINK_FLIGHT >= 2);
    hand_ack(h, first + 1, 0, 256);
    REQUIRE(hand_poll(h) == 0x28 && h->frame[1] == (uint8_t)(first + 2) && peer_get(h->frame + 2, 2) == offset);
    REQUIRE(h->len - 8 == len && memcmp(h->frame + 4, payload, len) == 0);
    REQUIRE(hand_poll(h) == 0);
    hand_ack(h, first + 2, 1, 256);
    REQUIRE(fieldgate_link_is_settled(&h->link));
    free(h);
}

static void test_flight(void) {
    struct hand *h = hand_new(20);
    uint8_t sent = 0;
    while (fieldgate_link_subscribe(&h->link, 1)) {}
    while (hand_poll(h) != 0) sent++;
    int frames = (FIELDGATE_LINK_TX / 3 * 3 + 9) / 10;
    REQUIRE(sent == (frames < FIELDGATE_LINK_FLIGHT ? frames : FIELDGATE_LINK_FLIGHT));
    free(h);
}

/* 1 s, 2 s, 4 s, 8 s, 8 s, each time one frame, and after 30 s the peer is silent. */
static void test_timer(void) {
    static const uint32_t times[] = {1000, 2000, 4000, 8000, 8000};
    struct hand *h = hand_new(20);
    h->link.timer_ms = 1000;
    for (uint16_t i = 0; i < 5; i++) REQUIRE(fieldgate_link_subscribe(&h->link, 1000 + i));
    while (hand_poll(h) != 0) {}
    for (int i = 0; i < 5; i++) {
        REQUIRE(fieldgate_link_poll_timeout(&h->link, h->now) == times[i]);
        REQUIRE(fieldgate_link_ask(&h->link)); /* once the timer ran out it has to wait until something arrives */
        h->now += times[i] - 1;
        REQUIRE(i == 0 || hand_poll(h) == 0);
        h->now += 1;
        REQUIRE(hand_poll(h) == 0x28 && hand_poll(h) == 0);
    }
    REQUIRE(fieldgate_link_poll_timeout(&h->link, h->now) == 7000 && h->downs == 0);
    hand_ack(h, h->link.next - 1, 0, 256); /* the last arrived: those before it are lost, and silence counts anew */
    REQUIRE(hand_poll(h) == 0x28);
    while (hand_poll(h) != 0) {}
    h->now += 29999;
    while (hand_poll(h) != 0) {}
    REQUIRE(h->downs == 0);
    h->now += 1;
    REQUIRE(hand_poll(h) == 0x19 && h->downs == 1);
    free(h);
}

/* A frame that was lost is not measured, the one in its place is: 50 ms and four times half of that. */
static void test_measurement(void) {
    struct hand *h = hand_new(64);
    h->link.timer_ms = 1000;
    h->link.round_trip_8 = 0;
    REQUIRE(fieldgate_link_ask(&h->link) && hand_poll(h) == 0x28);
    h->now += 1000;
    REQUIRE(hand_poll(h) == 0x28);
    h->now += 50;
    hand_ack(h, h->frame[1], 0, 256);
    REQUIRE(fieldgate_link_ask(&h->link) && hand_poll(h) == 0x28);
    REQUIRE(fieldgate_link_poll_timeout(&h->link, h->now) == 150);
    free(h);
}

static void test_limit_never_falls(void) {
    struct hand *h = hand_new(64);
    uint8_t last = h->link.next - 1;
    hand_ack(h, last, 0, h->link.tx_next + 40000);
    hand_ack(h, last, 0, h->link.tx_next);
    REQUIRE(fieldgate_link_ask(&h->link) && hand_poll(h) == 0x28);
    free(h);
}

static uint32_t hand_acked(struct hand *h) {
    REQUIRE(hand_poll(h) == 0x38 && h->len == 10 && hand_poll(h) == 0);
    return peer_get(h->frame + 1, 3);
}

/* `newest` and `before` of numbers in any order. */
static void test_numbers(void) {
    struct hand *h = hand_new(64);
    hand_data(h, 0, 0, "", 0);
    REQUIRE(hand_poll(h) == 0x38 && peer_get(h->frame + 1, 3) == 0 && peer_get(h->frame + 4, 2) == FIELDGATE_LINK_WINDOW);
    hand_data(h, 2, 0, "", 0);
    REQUIRE(hand_acked(h) == (2 | 2 << 8));
    hand_data(h, 1, 0, "", 0);
    REQUIRE(hand_acked(h) == (2 | 3 << 8));
    hand_data(h, 18, 0, "", 0);
    REQUIRE(hand_acked(h) == (18 | 0x8000 << 8));
    hand_data(h, 17, 0, "", 0);
    hand_data(h, 255, 0, "", 0); /* older than can be said: a copy of long ago */
    REQUIRE(hand_acked(h) == (18 | 0x8001 << 8));
    hand_data(h, 35, 0, "", 0);
    REQUIRE(hand_acked(h) == 35);
    free(h);
}

/* What the sender may not do, and frames above the MTU, count as lost: no ack, nothing taken. */
static void test_dropped(void) {
    struct hand *h = hand_new(64);
    uint8_t octets[FIELDGATE_LINK_MTU + 1];
    hand_data(h, 0, FIELDGATE_LINK_WINDOW - 1, "xy", 2);
    REQUIRE(hand_poll(h) == 0);
    hand_data(h, 1, FIELDGATE_LINK_WINDOW - 2, "xy", 2);
    REQUIRE(hand_poll(h) == 0x38);
    h->gateway.device_mtu = 0;
    memset(octets, 7, sizeof octets);
    uint8_t probe[1100] = {0x40};
    memset(probe + 1, 0, sizeof probe - 1); /* zeros take least: nearly each octet of the line is one of the frame */
    size_t fits = 1 + FIELDGATE_LINK_PROBE;
    hand_send(h, probe, fits + 1);
    REQUIRE(hand_poll(h) == 0x49 && h->len == fits + 5);
    hand_send(h, probe, fits + 2);
    REQUIRE(hand_poll(h) == 0);
    hand_data(h, 2, 0, octets, FIELDGATE_LINK_MTU - 10 + 1);
    REQUIRE(hand_poll(h) == 0);
    free(h);
}

static uint16_t hand_push(struct hand *h, uint8_t number, uint16_t offset, uint8_t id) {
    uint8_t push[13] = {12, 1, id, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    hand_data(h, number, offset, push, sizeof push);
    return offset + sizeof push;
}

/* More pushes than may wait for an answer: those that the application holds are not forgotten, others come later. */
static void test_too_many_wait(void) {
    struct hand *h = hand_new(64);
    uint16_t offset = 0;
    uint8_t number = 0;
    for (; number < FIELDGATE_LINK_WAITING; number++) {
        offset = hand_push(h, number, offset, number);
        REQUIRE(hand_poll(h) == 0x38);
    }
    REQUIRE(h->pushes == FIELDGATE_LINK_WAITING);
    offset = hand_push(h, number++, offset, 0); /* a copy of one that waits: its answer is still to come */
    REQUIRE(hand_poll(h) == 0x38);
    hand_push(h, number, offset, 200);
    REQUIRE(h->pushes == FIELDGATE_LINK_WAITING && (hand_poll(h) & 0xf0) == 0x20);
    REQUIRE(memcmp(h->frame + h->len - 4 - 11, "\x0a\x02\xc8\0\0\0\0\0\0\0\0", 11) == 0);
    free(h);
}

/* With no room for its answer a message stays in the window. */
static void test_no_room_for_answers(void) {
    struct hand *h = hand_new(64);
    h->answer = 1;
    while (fieldgate_link_ask(&h->link)) {}
    while (hand_poll(h) != 0) {}
    hand_push(h, 0, 0, 1);
    REQUIRE(h->pushes == 0 && hand_poll(h) == 0x38);
    hand_ack(h, h->link.next - 1, 0xffff, 256);
    REQUIRE(h->pushes == 1 && (hand_poll(h) & 0xf0) == 0x20);
    free(h);
}

/* ---- Hostile octets ---- */

static void ignore(void *context, const struct fieldgate_link_event *event) {
    struct fieldgate_link *l = context;
    volatile uint8_t sum = 0;
    for (size_t i = 0; event->body != NULL && i < event->len; i++) sum ^= event->body[i];
    if (event->kind != FIELDGATE_LINK_PUSH) return;
    if (random_below(3) == 0) fieldgate_link_ack(l, event->id);
    if (random_below(3) == 0) fieldgate_link_refuse(l, event->id, FIELDGATE_LINK_FULL);
}

/* Frames whose checksum fits, so that what they say is believed. */
static void hostile_frame(struct fieldgate_link *l, struct peer *p, uint32_t now) {
    static const uint8_t kinds[] = {0x20, 0x20, 0x20, 0x21, 0x22, 0x26, 0x30, 0x31, 0x40, 0x50};
    uint8_t frame[1100], out[1200];
    size_t n = 2 + random_below(FIELDGATE_LINK_MTU), known = 0;
    for (size_t i = 0; i < n; i++) frame[i] = (uint8_t)random_below(random_below(2) == 0 ? 256 : 8);
    frame[0] = kinds[random_below(sizeof kinds)];
    if ((frame[0] & 0xf0) == 0x30) n = 6;
    if (n > 6 && random_below(4) != 0) known = peer_set(frame + 2, l->rx[0].base + random_below(90) - 20, 2);
    if (known > 0 && random_below(2) == 0) frame[1] = (uint8_t)(l->newest + random_below(20));
    p->boot = l->peer;
    p->device = l->boot;
    size_t len = peer_finish(p, frame, n, (frame[0] & 0xf0) < 0x40, out);
    if (random_below(4) == 0) out[random_below((uint32_t)len)] = (uint8_t)random_below(256);
    fieldgate_link_feed(l, out, len, now);
}

static void open_by_hand(struct fieldgate_link *l, struct peer *p, uint32_t now) {
    uint8_t frame[18] = {0x11, 1}, out[32];
    peer_set(frame + 2, 1 + random_below(100), 4);
    peer_set(frame + 6, l->boot, 4);
    peer_set(frame + 10, 20 + random_below(2000), 2);
    peer_set(frame + 12, 32 + random_below(65000), 2);
    size_t len = peer_finish(p, frame, 14, false, out);
    fieldgate_link_feed(l, out, len, now);
}

static void say_something(struct fieldgate_link *l) {
    uint8_t id[8] = {(uint8_t)random_below(256)};
    switch (random_below(8)) {
    case 0: fieldgate_link_subscribe(l, (uint16_t)random_below(65536)); break;
    case 1: fieldgate_link_sleep(l, random_below(UINT32_MAX)); break;
    case 2: fieldgate_link_ack(l, id); break;
    case 3: fieldgate_link_refuse(l, id, FIELDGATE_LINK_NOT_POSSIBLE); break;
    default: break;
    }
}

static void test_hostile(uint32_t rounds) {
    /* On the heap, so that the sanitizer sees what is beyond them. */
    struct fieldgate_link *l = malloc(sizeof *l);
    struct peer *p = calloc(1, sizeof *p);
    uint8_t *out = malloc(FIELDGATE_LINK_MTU);
    uint32_t now = 0xffff0000u, opened = 0;
    REQUIRE(l != NULL && p != NULL && out != NULL);
    REQUIRE(fieldgate_link_start(l, "d", 1, false, ignore, l));
    for (uint32_t round = 0; round < rounds; round++) {
        now += random_below(random_below(10) == 0 ? 3000 : 5);
        if (!l->open) {
            open_by_hand(l, p, now);
            opened += l->open;
        }
        for (int i = 0; i < 8; i++) hostile_frame(l, p, now);
        uint8_t noise[16];
        for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)random_below(random_below(2) == 0 ? 256 : 3);
        fieldgate_link_feed(l, noise, random_below(sizeof noise), now);
        say_something(l);
        size_t n = fieldgate_link_poll(l, now, out);
        REQUIRE(n <= FIELDGATE_LINK_MTU && (n == 0 || memchr(out, 0, n) == out + n - 1));
        if (n == 0) REQUIRE(fieldgate_link_poll_timeout(l, now) > 0);
    }
    REQUIRE(opened > 10);
    free(out);
    free(p);
    free(l);
}

static void test_by_hand(void) {
    test_attach();
    test_loss_by_newer();
    test_flight();
    test_timer();
    test_measurement();
    test_limit_never_falls();
    test_numbers();
    test_dropped();
    test_too_many_wait();
    test_no_room_for_answers();
}

int main(void) {
    random_state = 1;
    test_encoding();
    test_checksum();
    test_frame_sizes();
    test_names();
    test_good_line();
    test_copies();
    test_silence();
    test_sleep();
    test_subscriptions();
    test_unknown_device();
    test_credit();
    test_probe();
    test_broken_rules();
    test_by_hand();
    for (uint32_t seed = 0; seed < 40; seed++) test_bad_line(seed);
    uint32_t ups = 0;
    for (uint32_t seed = 0; seed < 20; seed++) ups += test_resets(seed);
    REQUIRE(ups > 60);
    test_hostile(200000);
    printf("mtu %d, window %d, urgent %d: passed\n", FIELDGATE_LINK_MTU, FIELDGATE_LINK_WINDOW, FIELDGATE_LINK_URGENT);
    return 0;
}
