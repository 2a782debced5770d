/*
 * A guest-init that was taken over. It is honest until a template of it is taken and it has its
 * configuration; then it does what the second argument of the app's process says.
 *
 * Booted cold for a pod it never speaks. Where there are two processors it speaks nonsense at once.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

enum { HELLO = 64, UNIQUE_DONE = 65, STARTED = 66, STDOUT = 67, EXIT = 69, CREDIT = 71 };

static int port = -1;

static void say(const void *bytes, size_t count) {
    const char *at = bytes;
    while (count > 0) {
        ssize_t written = write(port, at, count);
        if (written <= 0) continue;
        at += written;
        count -= (size_t)written;
    }
}

static size_t put(char *to, uint8_t kind, const void *payload, uint32_t length) {
    char header[8] = {(char)kind};
    memcpy(header + 4, &length, 4);
    memcpy(to, header, 8);
    memcpy(to + 8, payload, length);
    return 8 + length;
}

static void frame(uint8_t kind, const void *payload, uint32_t length) {
    char bytes[64];
    say(bytes, put(bytes, kind, payload, length));
}

static void hear(void *bytes, size_t count) {
    char *at = bytes;
    while (count > 0) {
        ssize_t got = read(port, at, count);
        if (got <= 0) continue;
        at += got;
        count -= (size_t)got;
    }
}

static void started(void) {
    uint32_t pid = 2;
    frame(STARTED, &pid, 4);
}

static void ended(uint8_t how, int32_t value) {
    char payload[5] = {(char)how};
    memcpy(payload + 1, &value, 4);
    frame(EXIT, payload, 5);
}

static void off(void) {
    for (;;) reboot(RB_AUTOBOOT);
}

static void hold(void) {
    for (;;) pause();
}

static void garbage(void) {
    char bytes[256];
    memset(bytes, 0xff, sizeof bytes);
    say(bytes, sizeof bytes);
}

/* Credit for the agent, again and again, far more than it can have spent. */
static void credit(void) {
    static char bytes[12 * 4096];
    uint32_t more = 1 << 16;
    size_t length = 0;
    while (length + 12 <= sizeof bytes) length += put(bytes + length, CREDIT, &more, 4);
    for (int times = 0; times < 64; times++) say(bytes, length);
}

static void misbehave(const char *how) {
    if (strcmp(how, "garbage") == 0) garbage();
    if (strcmp(how, "early") == 0) ended(0, 0);
    if (strcmp(how, "large") == 0) {
        uint32_t header[2] = {STDOUT, 1 << 20};
        started();
        say(header, sizeof header);
    }
    if (strcmp(how, "exit") == 0) {
        started();
        ended(0, 256);
    }
    if (strcmp(how, "off") == 0) off();
    if (strcmp(how, "panic") == 0) exit(0);
    if (strcmp(how, "linger") == 0) {
        started();
        ended(0, 8);
    }
    if (strcmp(how, "credit") == 0) {
        started();
        credit();
    }
    hold();
}

/* The word after "hostile" in the process's arguments, as canonical JSON has them. */
static void configured(void) {
    static char config[1 << 19];
    uint8_t header[8];
    uint32_t length;
    hear(header, 8);
    memcpy(&length, header + 4, 4);
    if (length >= sizeof config) hold();
    hear(config, length);
    char *word = strstr(config, "\"hostile\",\"");
    if (word == NULL) hold();
    word += strlen("\"hostile\",\"");
    *strchr(word, '"') = 0;
    misbehave(word);
}

/* Whether a file holds anything but the digit 0. */
static int is_zero(const char *path) {
    char digit = '0';
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && read(fd, &digit, 1) < 0) digit = '0';
    close(fd);
    return digit == '0';
}

int main(void) {
    struct timespec little = {0, 10 * 1000 * 1000};
    char unique[8 + 88];
    uint32_t hello[2] = {1, 0};
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    if (!is_zero("/sys/block/vdb/size")) hold();
    while ((port = open("/dev/vport0p1", O_RDWR)) < 0) nanosleep(&little, NULL);
    if (access("/nonsense", F_OK) == 0) {
        garbage();
        hold();
    }
    frame(HELLO, hello, 8);
    hear(unique, sizeof unique);
    frame(UNIQUE_DONE, "", 0);
    configured();
}
