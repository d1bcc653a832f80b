/* A device on a serial port, a pseudo-terminal or a Unix socket: prints each push as a line and acknowledges it once the
 * line has left this process.
 *
 *     cc -std=c99 -o posix_device posix_device.c
 *     ./posix_device [--baud N] [--ephemeral CHANNEL[,CHANNEL...]] [--count N] PATH DEVICE
 *
 * --ephemeral: subscribes these channels in each session and unsubscribes them when it is told to end (SIGTERM, SIGINT).
 * --count: ends after so many pushes, when the gateway's link has their acknowledgements.
 *
 * On standard output: `push <id> <channel> <age> <body>`, with octets of the body that do not print as \xhh. On standard
 * error: what else happens. It keeps nothing over its own end. */
#define _DEFAULT_SOURCE

#ifndef FIELDGATE_LINK_MTU
#define FIELDGATE_LINK_MTU 256
#define FIELDGATE_LINK_WINDOW 4098
#define FIELDGATE_LINK_URGENT 4098
#define FIELDGATE_LINK_TX 128
#define FIELDGATE_LINK_FLIGHT 16
#endif
#define FIELDGATE_LINK_IMPLEMENTATION
#include "fieldgate_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { CHANNELS = 8, AGAIN_MS = 1000, FAREWELL_MS = 5000 };

struct device {
    struct fieldgate_link link;
    const char *path, *name;
    speed_t baud;
    uint16_t channels[CHANNELS];
    size_t channel_count;
    bool subscribe_due, farewell;
    unsigned long pushes, most;

    int line; /* -1: not open */
    uint8_t out[FIELDGATE_LINK_MTU];
    size_t out_len, out_sent;
};

static volatile sig_atomic_t ending;

static void on_signal(int signal) {
    (void)signal;
    ending = 1;
}

static uint32_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static uint32_t random_boot_id(void) {
    uint32_t id = 0;
    FILE *file = fopen("/dev/urandom", "rb");
    if (file == NULL || fread(&id, sizeof id, 1, file) != 1) id = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid();
    if (file != NULL) fclose(file);
    return id == 0 ? 1 : id;
}

/* ---- Events ---- */

static bool print_push(const struct fieldgate_link_event *event) {
    printf("push ");
    for (int i = 0; i < 8; i++) printf("%02x", event->id[i]);
    printf(" %u %lu ", (unsigned)event->channel, (unsigned long)event->age);
    for (size_t i = 0; i < event->len; i++) {
        uint8_t octet = event->body[i];
        if (octet >= 0x20 && octet < 0x7f && octet != '\\') {
            putchar(octet);
        } else {
            printf("\\x%02x", octet);
        }
    }
    putchar('\n');
    return fflush(stdout) == 0;
}

static void on_push(struct device *d, const struct fieldgate_link_event *event) {
    if (!print_push(event)) {
        fieldgate_link_refuse(&d->link, event->id, FIELDGATE_LINK_FULL);
        return;
    }
    fieldgate_link_ack(&d->link, event->id);
    d->pushes++;
}

static void on_event(void *context, const struct fieldgate_link_event *event) {
    struct device *d = context;
    switch (event->kind) {
    case FIELDGATE_LINK_UP: fprintf(stderr, "up\n"), d->subscribe_due = true; break;
    case FIELDGATE_LINK_DOWN: fprintf(stderr, "down %u\n", event->why); break;
    case FIELDGATE_LINK_PUSH: on_push(d, event); break;
    case FIELDGATE_LINK_SUBSCRIBED: fprintf(stderr, "subscribed %u\n", (unsigned)event->channel); break;
    case FIELDGATE_LINK_REFUSED:
        fprintf(stderr, "refused %u %u\n", (unsigned)event->channel, event->reason);
        break;
    case FIELDGATE_LINK_UNSUBSCRIBED: fprintf(stderr, "unsubscribed %u\n", (unsigned)event->channel); break;
    case FIELDGATE_LINK_STATUS: fprintf(stderr, "status %u %u\n", event->uplink, event->waiting); break;
    case FIELDGATE_LINK_OTHER_VERSION: fprintf(stderr, "other version %u\n", event->version); break;
    }
}

/* All of them or, if there is no room yet, the same again later: asking twice is harmless. */
static bool say_of_channels(struct device *d, bool (*say)(struct fieldgate_link *, uint16_t)) {
    for (size_t i = 0; i < d->channel_count; i++) {
        if (!say(&d->link, d->channels[i])) return false;
    }
    return true;
}

/* ---- The line ---- */

static int open_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

static int open_terminal(const char *path, speed_t baud) {
    struct termios raw;
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return -1;
    if (tcgetattr(fd, &raw) != 0) return fd;
    cfmakeraw(&raw);
    raw.c_cflag |= CLOCAL | CREAD;
    raw.c_cflag &= (tcflag_t)~(CSTOPB | CRTSCTS);
    cfsetspeed(&raw, baud);
    if (tcsetattr(fd, TCSANOW, &raw) == 0) return fd;
    close(fd);
    return -1;
}

static void open_line(struct device *d) {
    struct stat status;
    if (stat(d->path, &status) != 0) return;
    d->line = S_ISSOCK(status.st_mode) ? open_socket(d->path) : open_terminal(d->path, d->baud);
    if (d->line < 0) return;
    fcntl(d->line, F_SETFL, fcntl(d->line, F_GETFL) | O_NONBLOCK);
    d->out_len = d->out_sent = 0;
    fieldgate_link_reconnected(&d->link);
}

static void close_line(struct device *d) {
    close(d->line);
    d->line = -1;
}

static bool failed(ssize_t n) { return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR); }

static void read_line(struct device *d) {
    uint8_t octets[512];
    ssize_t n = read(d->line, octets, sizeof octets);
    if (n > 0) fieldgate_link_feed(&d->link, octets, (size_t)n, now_ms());
    if (failed(n)) close_line(d);
}

/* A frame is asked for only when the one before was handed over: a frame that waits would carry an old ack. */
static void write_line(struct device *d) {
    while (d->line >= 0) {
        if (d->out_sent == d->out_len) {
            d->out_sent = 0;
            d->out_len = fieldgate_link_poll(&d->link, now_ms(), d->out);
            if (d->out_len == 0) return;
        }
        ssize_t n = write(d->line, d->out + d->out_sent, d->out_len - d->out_sent);
        if (failed(n)) close_line(d);
        if (n < 0) return;
        d->out_sent += (size_t)n;
    }
}

static void wait_for_line(struct device *d) {
    struct pollfd wait = {.fd = d->line, .events = POLLIN};
    bool full = d->out_sent < d->out_len;
    uint32_t timeout = full ? AGAIN_MS : fieldgate_link_poll_timeout(&d->link, now_ms());
    if (d->line < 0 || timeout > AGAIN_MS) timeout = AGAIN_MS; /* signals are looked at each second at least */
    if (full) wait.events |= POLLOUT;
    if (poll(&wait, 1, (int)timeout) > 0 && (wait.revents & ~POLLOUT) != 0) read_line(d);
}

static bool is_done(struct device *d, uint32_t ends_at) {
    bool enough = d->most > 0 && d->pushes >= d->most;
    if (!enough && !ending) return false;
    if (!d->farewell) d->farewell = fieldgate_link_is_open(&d->link) && say_of_channels(d, fieldgate_link_unsubscribe);
    return (d->farewell && fieldgate_link_is_settled(&d->link)) || (int32_t)(now_ms() - ends_at) > 0;
}

static int run(struct device *d) {
    uint32_t ends_at = 0;
    for (;;) {
        if (d->line < 0) open_line(d);
        if (d->subscribe_due && fieldgate_link_is_open(&d->link)) {
            d->subscribe_due = !say_of_channels(d, fieldgate_link_subscribe);
        }
        write_line(d);
        wait_for_line(d);
        if (!ending && (d->most == 0 || d->pushes < d->most)) ends_at = now_ms() + FAREWELL_MS;
        if (is_done(d, ends_at)) return d->most > 0 && d->pushes < d->most ? 1 : 0;
    }
}

/* ---- Command line ---- */

static speed_t speed_of(const char *baud) {
    static const struct {
        const char *name;
        speed_t speed;
    } speeds[] = {{"9600", B9600}, {"19200", B19200}, {"38400", B38400}, {"57600", B57600}, {"115200", B115200},
                  {"230400", B230400}};
    for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        if (strcmp(baud, speeds[i].name) == 0) return speeds[i].speed;
    }
    return B0;
}

static bool read_channels(struct device *d, const char *list) {
    while (*list != 0) {
        char *end;
        long channel = strtol(list, &end, 10);
        if (channel < 1 || channel > 65535 || d->channel_count == CHANNELS || (*end != ',' && *end != 0)) return false;
        d->channels[d->channel_count++] = (uint16_t)channel;
        list = *end == ',' ? end + 1 : end;
    }
    return true;
}

static bool read_arguments(struct device *d, int count, char **arguments) {
    int i = 1;
    for (; i + 1 < count && strncmp(arguments[i], "--", 2) == 0; i += 2) {
        const char *value = arguments[i + 1];
        if (strcmp(arguments[i], "--baud") == 0) {
            d->baud = speed_of(value);
            if (d->baud == B0) return false;
        } else if (strcmp(arguments[i], "--ephemeral") == 0) {
            if (!read_channels(d, value)) return false;
        } else if (strcmp(arguments[i], "--count") == 0) {
            d->most = strtoul(value, NULL, 10);
        } else {
            return false;
        }
    }
    if (i + 2 != count) return false;
    d->path = arguments[i];
    d->name = arguments[i + 1];
    return true;
}

int main(int count, char **arguments) {
    static struct device d = {.baud = B115200, .line = -1};
    struct sigaction action = {.sa_handler = on_signal};
    if (!read_arguments(&d, count, arguments) ||
        !fieldgate_link_start(&d.link, d.name, random_boot_id(), false, on_event, &d)) {
        fprintf(stderr, "usage: %s [--baud N] [--ephemeral CHANNEL[,CHANNEL...]] [--count N] PATH DEVICE\n", arguments[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return run(&d);
}
