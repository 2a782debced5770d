// A tap in a network namespace of this process's own, and somebody behind it who sends every datagram back.
#ifndef ECHO_TAP_H
#define ECHO_TAP_H
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runner.h"

#define ECHO_TAP "echo"
#define ECHO_HOST "10.99.0.1"
enum { ECHO_PORT = 7, VIRTIO_NET_HEADER = 12 };

static void echo_for_ever(void) {
  struct sockaddr_in from, here = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
  char datagram[2048];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  check(bind(fd, (struct sockaddr *)&here, sizeof(here)) != 0, "bind");
  for (;;) {
    socklen_t length = sizeof(from);
    ssize_t size = recvfrom(fd, datagram, sizeof(datagram), 0, (struct sockaddr *)&from, &length);
    if (size >= 0) sendto(fd, datagram, size, 0, (struct sockaddr *)&from, length);
  }
}

// As casemate-spawn makes one; a persistent one stays when its descriptor is closed, for whoever opens it by name.
static int make_echo_tap(int is_persistent) {
  struct ifreq wanted = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  struct sockaddr_in address = {.sin_family = AF_INET};
  int header = VIRTIO_NET_HEADER;
  strcpy(wanted.ifr_name, ECHO_TAP);
  check(unshare(CLONE_NEWNET) != 0, "unshare");
  int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  check(tap < 0, "/dev/net/tun");
  check(ioctl(tap, TUNSETIFF, &wanted) != 0, "TUNSETIFF");
  check(ioctl(tap, TUNSETVNETHDRSZ, &header) != 0, "TUNSETVNETHDRSZ");
  check(is_persistent && ioctl(tap, TUNSETPERSIST, 1) != 0, "TUNSETPERSIST");
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  inet_pton(AF_INET, ECHO_HOST, &address.sin_addr);
  memcpy(&wanted.ifr_addr, &address, sizeof(address));
  check(ioctl(fd, SIOCSIFADDR, &wanted) != 0, "SIOCSIFADDR");
  inet_pton(AF_INET, "255.255.255.0", &address.sin_addr);
  memcpy(&wanted.ifr_netmask, &address, sizeof(address));
  check(ioctl(fd, SIOCSIFNETMASK, &wanted) != 0, "SIOCSIFNETMASK");
  wanted.ifr_flags = IFF_UP;
  check(ioctl(fd, SIOCSIFFLAGS, &wanted) != 0, "SIOCSIFFLAGS");
  close(fd);
  pid_t echo = fork();
  check(echo < 0, "fork");
  if (echo == 0) {
    close(tap);
    echo_for_ever();
  }
  return tap;
}
#endif
