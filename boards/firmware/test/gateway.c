/* The gateway of peer.h at a socket or a terminal: pushes messages to whatever device is there, and ends with 0 once it
 * has acknowledged them all.
 *
 *     gateway listen|connect|terminal PATH DEVICE MESSAGES [LARGEST] */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static uint32_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static int listen_at(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(address->sun_path);
    REQUIRE(fd >= 0 && bind(fd, (const struct sockaddr *)address, sizeof *address) == 0 && listen(fd, 1) == 0);
    return accept(fd, NULL, NULL);
}

static int connect_to(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    for (int i = 0; connect(fd, (const struct sockaddr *)address, sizeof *address) != 0; i++) {
        REQUIRE(i < 100);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    return fd;
}

/* The near end of a new pseudo-terminal, whose far end the device opens at `path`. */
static int open_terminal(const char *path) {
    struct termios raw;
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    REQUIRE(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0);
    REQUIRE(open(ptsname(fd), O_RDWR | O_NOCTTY) >= 0); /* stays open, or reading fails before the device is there */
    REQUIRE(tcgetattr(fd, &raw) == 0);
    cfmakeraw(&raw);
    REQUIRE(tcsetattr(fd, TCSANOW, &raw) == 0);
    unlink(path);
    REQUIRE(symlink(ptsname(fd), path) == 0);
    return fd;
}

static int open_line(const char *how, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    REQUIRE(strlen(path) < sizeof address.sun_path);
    strcpy(address.sun_path, path);
    int fd = strcmp(how, "listen") == 0 ? listen_at(&address) : strcmp(how, "connect") == 0 ? connect_to(&address) :
             open_terminal(path);
    REQUIRE(fd >= 0);
    return fd;
}

/* Texts, so that they can be compared line by line with what the device prints. */
static void add_messages(struct peer *p, uint32_t count, uint32_t largest) {
    char body[4096];
    uint8_t id[8] = {0};
    for (uint32_t i = 0; i < count; i++) {
        int n = snprintf(body, sizeof body, "message %u ", (unsigned)i);
        uint32_t len = (uint32_t)n + i * 7919 % (largest - (uint32_t)n + 1);
        memset(body + n, 'a' + (int)(i % 26), len - (uint32_t)n);
        peer_set(id + 4, i, 4);
        peer_add_push(p, id, (uint16_t)(1 + i % 2), false, (uint8_t *)body, (uint16_t)len);
    }
}

int main(int count, char **arguments) {
    static struct peer p;
    REQUIRE(count >= 5);
    int fd = open_line(arguments[1], arguments[2]);
    uint32_t start = now_ms(), done_at = 0;
    peer_init(&p, start | 1, 256, arguments[3]);
    add_messages(&p, (uint32_t)atoi(arguments[4]), count > 5 ? (uint32_t)atoi(arguments[5]) : 40);
    while (now_ms() - start < 120000) {
        uint8_t octets[1100];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        size_t n = peer_poll(&p, now_ms(), octets);
        if (n > 0) REQUIRE(write(fd, octets, n) == (ssize_t)n);
        if (poll(&wait, 1, n > 0 ? 0 : 10) > 0) {
            ssize_t got = read(fd, octets, sizeof octets);
            if (got <= 0) break;
            peer_feed(&p, octets, (size_t)got, now_ms());
        }
        if (p.done_count < p.push_count) done_at = now_ms();
        if (now_ms() - done_at > 300) break; /* the last acks have left */
    }
    printf("device %s: %u of %u acknowledged in %u ms, sessions %u, frames in %u, bad %u, out %u, largest %u, ids %u\n",
           p.name, (unsigned)p.done_count, (unsigned)p.push_count, (unsigned)(done_at - start), (unsigned)p.sessions,
           (unsigned)p.frames_in, (unsigned)p.frames_bad, (unsigned)p.frames_out, (unsigned)p.largest,
           (unsigned)p.memory);
    bool all = p.done_count == p.push_count;
    peer_free(&p);
    return all ? 0 : 1;
}
