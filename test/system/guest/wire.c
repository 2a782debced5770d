/*
 * The app of tests of the network: does what its arguments say, one word after the other, in one process.
 *   serve PORT            answers connections of both versions, for ever
 *   reach ADDRESS PORT    what a server there answers, or why there is none
 *   onlink                makes the card the way to every address (CAP_NET_ADMIN)
 *   spoof                 sends frames of somebody else (CAP_NET_RAW), one of each kind
 *   honest ADDRESS        sends a question of its own
 *   ping ADDRESS          an echo, by a socket that is there for it (icmp(7))
 *   hear                  says of all frames that come to the card whose they are, for ever
 *   sink PORT / pour ADDRESS PORT MIB   bytes in one direction, and how long that took
 *   below                 which namespaces and sockets may be made
 *   card, say WORDS, hold
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <net/route.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* More than three requests of ARP, a second each. */
#define PATIENCE_MS 60000
#define CARD "eth0"

static char buffer[1 << 16];

static int fails(const char *word) {
    printf("%s %s\n", word, strerrorname_np(errno));
    return -1;
}

static int listening(const char *word, const char *port) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)), .sin6_addr = in6addr_any};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 || listen(fd, 8) < 0) return fails(word);
    printf("%s ready\n", word);
    fflush(NULL);
    return fd;
}

static void serve(const char *port) {
    int server = listening("serve", port);
    while (server >= 0) {
        struct sockaddr_in6 peer;
        socklen_t size = sizeof peer;
        char text[INET6_ADDRSTRLEN], line[128];
        int fd = accept(server, (struct sockaddr *)&peer, &size);
        if (fd < 0) continue;
        inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text);
        int length = snprintf(line, sizeof line, "hello %s\n", text);
        if (write(fd, line, (size_t)length) < 0) fails("serve");
        close(fd);
        printf("served %s\n", text);
        fflush(NULL);
    }
}

/* A connection, or -1 with the error. */
static int connection(const char *address, const char *port) {
    in_port_t number = htons((uint16_t)atoi(port));
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = number};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = number};
    int is_six = strchr(address, ':') != NULL, error = 0;
    inet_pton(is_six ? AF_INET6 : AF_INET, address, is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr);
    int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof error;
    int answer = is_six ? connect(fd, (struct sockaddr *)&six, sizeof six) : connect(fd, (struct sockaddr *)&four, sizeof four);
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    if (answer < 0 && errno == EINPROGRESS) {
        if (poll(&writable, 1, PATIENCE_MS) == 0) return errno = ETIMEDOUT, -1;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        answer = error == 0 ? 0 : -1;
        errno = error;
    }
    if (answer < 0) return -1;
    fcntl(fd, F_SETFL, 0);
    return fd;
}

static void reach(const char *address, const char *port) {
    int fd = connection(address, port);
    ssize_t count = fd < 0 ? -1 : read(fd, buffer, 256);
    if (count < 0) printf("reach %s %s\n", address, strerrorname_np(errno));
    else printf("reach %s %.*s", address, (int)count, buffer);
    close(fd);
}

static void onlink(void) {
    struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = (char[]){CARD}};
    route.rt_dst.sa_family = route.rt_genmask.sa_family = route.rt_gateway.sa_family = AF_INET;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (ioctl(fd, SIOCADDRT, &route) < 0) fails("onlink");
    else printf("onlink ok\n");
    close(fd);
}

static struct ifreq card(unsigned long request) {
    struct ifreq wanted = {.ifr_name = CARD};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (ioctl(fd, request, &wanted) < 0) fails("card");
    close(fd);
    return wanted;
}

/* What a user namespace would permit everybody, and what the kernel tells of its devices. */
static void below(void) {
    int route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), events = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
    printf("route %s\n", route < 0 ? strerrorname_np(errno) : "ok");
    if (events < 0) fails("events");
    else printf("events ok\n");
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) fails("user");
    else printf("user ok\n");
    if (unshare(CLONE_NEWNET) < 0) fails("net");
    else printf("net ok\n");
}

static void show_card(void) {
    struct ifreq address = card(SIOCGIFHWADDR), size = card(SIOCGIFMTU);
    printf("card");
    for (int at = 0; at < 6; at++) printf("%c%02x", at == 0 ? ' ' : ':', (unsigned char)address.ifr_hwaddr.sa_data[at]);
    printf(" %d\n", size.ifr_mtu);
}

/* To everybody, from `mac`: a packet of IPv4 or ARP whose source is `from`. */
static void send_frame(int fd, const unsigned char *mac, int arp, const char *from) {
    static const unsigned char ip[] = {0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0};
    static const unsigned char question[] = {0, 1, 8, 0, 6, 4, 0, 1};
    unsigned char frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    memcpy(frame + 6, mac, 6);
    frame[12] = 8;
    frame[13] = arp ? 6 : 0;
    memcpy(frame + 14, arp ? question : ip, arp ? sizeof question : sizeof ip);
    if (arp) memcpy(frame + 22, mac, 6);
    inet_pton(AF_INET, from, frame + (arp ? 28 : 26));
    memset(frame + (arp ? 38 : 30), 0xff, 4);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(CARD), .sll_halen = 6};
    if (sendto(fd, frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to) < 0) fails("spoof");
}

static void spoof(void) {
    static const unsigned char other[] = {2, 0, 0, 0, 0, 99};
    struct ifreq own = card(SIOCGIFHWADDR);
    const unsigned char *mac = (const unsigned char *)own.ifr_hwaddr.sa_data;
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0) {
        fails("spoof");
        return;
    }
    send_frame(fd, other, 0, "10.88.0.2");
    send_frame(fd, mac, 0, "10.88.0.77");
    send_frame(fd, mac, 1, "10.88.0.77");
    printf("spoof ok\n");
    close(fd);
}

static void honest(const char *address) {
    struct ifreq own = card(SIOCGIFHWADDR);
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    send_frame(fd, (const unsigned char *)own.ifr_hwaddr.sa_data, 1, address);
    close(fd);
}

static void ping(const char *address) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    unsigned char echo[8] = {8};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (fd < 0 || sendto(fd, echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to) < 0 || read(fd, echo, sizeof echo) < 0) fails("ping");
    else printf("ping answer %d\n", echo[0]);
    close(fd);
}

static void hear(void) {
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    printf(fd < 0 ? "hear fails\n" : "hear ready\n");
    for (;;) {
        struct sockaddr_ll from;
        socklen_t size = sizeof from;
        unsigned char frame[2048];
        char text[INET_ADDRSTRLEN];
        fflush(NULL);
        ssize_t count = recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &size);
        int arp = frame[12] == 8 && frame[13] == 6;
        if (count < 38 || from.sll_pkttype == PACKET_OUTGOING || frame[12] != 8) continue;
        inet_ntop(AF_INET, frame + (arp ? 28 : 26), text, sizeof text);
        printf("heard %02x:%02x of %s %s\n", frame[6], frame[11], arp ? "arp" : "ip", text);
    }
}

/* The byte at this place of a stream; no two pieces of it are alike. */
static char pattern(long long place) {
    return (char)(place ^ place >> 8 ^ place >> 16);
}

static void sink(const char *port) {
    int server = listening("sink", port);
    while (server >= 0) {
        int fd = accept(server, NULL, NULL), same = 1;
        long long total = 0;
        for (ssize_t count; fd >= 0 && (count = read(fd, buffer, sizeof buffer)) > 0; total += count)
            for (ssize_t in = 0; in < count; in++) same = same && buffer[in] == pattern(total + in);
        close(fd);
        printf("sank %lld %s\n", total, same ? "as they were sent" : "CHANGED");
        fflush(NULL);
    }
}

static void pour(const char *address, const char *port, int mib) {
    struct timespec from, to;
    int fd = connection(address, port);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int at = 0; fd >= 0 && at < mib * 16; at++) {
        for (size_t in = 0; in < sizeof buffer; in++) buffer[in] = pattern((long long)at * (long long)sizeof buffer + (long long)in);
        for (size_t done = 0; done < sizeof buffer;) {
            ssize_t count = write(fd, buffer + done, sizeof buffer - done);
            if (count < 0) {
                fails("pour");
                return;
            }
            done += (size_t)count;
        }
    }
    shutdown(fd, SHUT_WR);
    if (fd < 0 || read(fd, buffer, 1) < 0) fails("pour");
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("poured %lld\n", (long long)(to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000);
}

int main(int count, char **words) {
    for (int at = 1; at < count; at++) {
        const char *word = words[at];
        int left = count - at - 1;
        if (strcmp(word, "onlink") == 0) onlink();
        if (strcmp(word, "below") == 0) below();
        if (strcmp(word, "card") == 0) show_card();
        if (strcmp(word, "spoof") == 0) spoof();
        if (strcmp(word, "hear") == 0) hear();
        if (strcmp(word, "ping") == 0 && left >= 1) ping(words[++at]);
        if (strcmp(word, "honest") == 0 && left >= 1) honest(words[++at]);
        if (strcmp(word, "serve") == 0 && left >= 1) serve(words[++at]);
        if (strcmp(word, "sink") == 0 && left >= 1) sink(words[++at]);
        if (strcmp(word, "say") == 0 && left >= 1) printf("%s\n", words[++at]);
        if (strcmp(word, "reach") == 0 && left >= 2) reach(words[at + 1], words[at + 2]), at += 2;
        if (strcmp(word, "pour") == 0 && left >= 3) pour(words[at + 1], words[at + 2], atoi(words[at + 3])), at += 3;
        fflush(NULL);
        while (strcmp(word, "hold") == 0) pause();
    }
    return 0;
}
