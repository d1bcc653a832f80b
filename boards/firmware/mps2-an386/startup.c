/* From reset to main, and what the compiler wants of every program. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t stack_top[], data_image[], data_start[], data_end[], bss_start[], bss_end[];

int main(void);
void on_tick(void);
void on_link_octet(void);

void *memset(void *to, int octet, size_t n) {
    for (uint8_t *t = to; n-- > 0;) *t++ = (uint8_t)octet;
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if (t < f) {
        while (n-- > 0) *t++ = *f++;
    } else {
        while (n-- > 0) t[n] = f[n];
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t n) { return memmove(to, from, n); }

void reset(void) {
    uint32_t *from = data_image;
    for (uint32_t *to = data_start; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    main();
    for (;;) {}
}

static void fault(void) {
    for (;;) {}
}

struct vectors {
    uint32_t *stack;
    void (*exceptions[15])(void); /* from reset, number 1, to SysTick, number 15 */
    void (*interrupts[1])(void);  /* 0: the link's UART has received */
};

__attribute__((section(".vectors"), used)) static const struct vectors vectors = {
    stack_top,
    {reset, fault, fault, fault, fault, fault, NULL, NULL, NULL, NULL, fault, fault, NULL, fault, on_tick},
    {on_link_octet},
};
