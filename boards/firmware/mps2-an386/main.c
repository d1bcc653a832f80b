/* A device on a Cortex-M4 (ARM MPS2 with AN386, or `qemu-system-arm -M mps2-an386`). UART0 is the link; on UART1 there is
 * a line for each push: `push <id> <channel> <body>`. */
#include "../fieldgate_link.h"

#define DEVICE "meter-7"
#define CLOCK_HZ 25000000u
#define BAUD 115200u

struct uart {
    volatile uint32_t data, state, control, interrupt, divider;
};
enum { UART_FULL = 1, UART_RECEIVED = 2 };                                /* state */
enum { UART_SENDS = 1, UART_RECEIVES = 2, UART_INTERRUPTS_RECEIVED = 8 }; /* control */

#define LINK_UART ((struct uart *)0x40004000)
#define TEXT_UART ((struct uart *)0x40005000)

struct systick {
    volatile uint32_t control, reload, value;
};
#define SYSTICK ((struct systick *)0xe000e010)
#define INTERRUPTS_ENABLE ((volatile uint32_t *)0xe000e100)

/* Octets that arrived while the text was written; full, the next are lost, as a line may lose them. */
#define RING 1024
static volatile uint8_t ring[RING];
static volatile uint16_t ring_in, ring_out;

static volatile uint32_t milliseconds;

static struct fieldgate_link session;

void on_tick(void) { milliseconds++; }

void on_link_octet(void) {
    LINK_UART->interrupt = UART_RECEIVED;
    while ((LINK_UART->state & UART_RECEIVED) != 0) {
        uint8_t octet = (uint8_t)LINK_UART->data;
        if ((uint16_t)(ring_in - ring_out) == RING) continue;
        ring[ring_in % RING] = octet;
        ring_in++;
    }
}

static void start_board(void) {
    LINK_UART->divider = CLOCK_HZ / BAUD;
    LINK_UART->control = UART_SENDS | UART_RECEIVES | UART_INTERRUPTS_RECEIVED;
    TEXT_UART->divider = CLOCK_HZ / BAUD;
    TEXT_UART->control = UART_SENDS;
    SYSTICK->reload = CLOCK_HZ / 1000 - 1;
    SYSTICK->value = 0;
    SYSTICK->control = 7; /* of the processor's clock, with interrupt */
    *INTERRUPTS_ENABLE = 1;
}

static void wait_for_interrupt(void) { __asm volatile("wfi"); }

static void write_octet(uint8_t octet) {
    while ((TEXT_UART->state & UART_FULL) != 0) {}
    TEXT_UART->data = octet;
}

static void write_text(const char *text) {
    while (*text != 0) write_octet((uint8_t)*text++);
}

static void write_hex(uint8_t octet) {
    static const char digits[] = "0123456789abcdef";
    write_octet((uint8_t)digits[octet >> 4]);
    write_octet((uint8_t)digits[octet & 15]);
}

static void write_number(uint32_t number) {
    char digits[11];
    int at = 10;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    write_text(digits + at);
}

static void on_push(const struct fieldgate_link_event *push) {
    write_text("push ");
    for (int i = 0; i < 8; i++) write_hex(push->id[i]);
    write_octet(' ');
    write_number(push->channel);
    write_octet(' ');
    for (size_t i = 0; i < push->len; i++) write_octet(push->body[i]);
    write_octet('\n');
    /* What this device is for has been done, so the message cannot be lost any more. */
    fieldgate_link_ack(&session, push->id);
}

static void on_event(void *context, const struct fieldgate_link_event *event) {
    (void)context;
    if (event->kind == FIELDGATE_LINK_PUSH) on_push(event);
}

/* This board has no source of random numbers and keeps nothing without power. When the first octet of the gateway
 * comes, to a cycle of the clock, is as good; a gateway without a session sends one each second. */
static uint32_t choose_boot_id(void) {
    while (ring_in == ring_out && milliseconds < 2000) {}
    uint32_t id = milliseconds * (CLOCK_HZ / 1000) + SYSTICK->value;
    return id == 0 ? 1 : id;
}

static void feed_session(void) {
    while (ring_in != ring_out) {
        uint8_t octet = ring[ring_out % RING];
        ring_out++;
        fieldgate_link_feed(&session, &octet, 1, milliseconds);
    }
}

/* As much of the frame as the UART takes; the next frame is made when this one has left. True when nothing is left. */
static bool send_frame(void) {
    static uint8_t frame[FIELDGATE_LINK_MTU];
    static size_t len, sent;
    if (sent == len) {
        sent = 0;
        len = fieldgate_link_poll(&session, milliseconds, frame);
    }
    while (sent < len && (LINK_UART->state & UART_FULL) == 0) LINK_UART->data = frame[sent++];
    return sent == len;
}

int main(void) {
    start_board();
    if (!fieldgate_link_start(&session, DEVICE, choose_boot_id(), false, on_event, NULL)) return 1;
    for (;;) {
        feed_session();
        bool sent = send_frame();
        if (sent && ring_in == ring_out && fieldgate_link_poll_timeout(&session, milliseconds) > 0) wait_for_interrupt();
    }
}
