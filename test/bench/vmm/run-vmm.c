// Starts casemate-vmm as spawn does, but for the jail, and says when it said what: Node reads no
// SOCK_SEQPACKET and cannot take the time of an exec.
//
// Usage: run-vmm VMM [tap]   with the descriptors of docs/formats.md section 6 in place, except 4 and 5,
// which are made here, as is 14 when a tap is asked for (echo-tap.h). A line on standard output for each thing that happens:
//   pid N                      the VMM's
//   said KIND NS TEXT          a control message, nanoseconds after execve was called; TEXT of FAILURE
//   ended STATUS NS            as of waitpid, nanoseconds after execve was called
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "echo-tap.h"
#include "runner.h"

enum { CONTROL = 4, STREAM = 5, LAST = 13, NET = 14, ABOVE = 64, FAILURE = 4, FAILURE_HEAD = 5 };

// A pair above all roles: the lowest free numbers are those of descriptors this launch must not have.
static void pair(int type, int ends[2]) {
  int low[2];
  check(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, low) != 0, "socketpair");
  for (int end = 0; end < 2; end++) {
    ends[end] = fcntl(low[end], F_DUPFD_CLOEXEC, ABOVE);
    check(ends[end] < 0, "F_DUPFD_CLOEXEC");
    close(low[end]);
  }
}

static void become(const char *vmm, int control, int stream, int tap, volatile long long *began) {
  char *argv[] = {"casemate-vmm", NULL};
  char *environment[] = {NULL};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int null = fcntl(open("/dev/null", O_RDWR), F_DUPFD_CLOEXEC, ABOVE);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  dup2(control, CONTROL);
  dup2(stream, STREAM);
  if (tap >= 0) dup2(tap, NET);
  *began = now();
  execve(vmm, argv, environment);
  _exit(127);
}

int main(int argc, char **argv) {
  check(argc != 2 && argc != 3, "usage: run-vmm VMM [tap]");
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setvbuf(stdout, NULL, _IOLBF, 0);
  long long *began = mmap(NULL, sizeof(*began), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check(began == MAP_FAILED, "mmap");
  int tap = -1;
  if (argc == 3) {
    int low = make_echo_tap(0);
    tap = fcntl(low, F_DUPFD_CLOEXEC, ABOVE);
    close(low);
  }
  int control[2], stream[2];
  pair(SOCK_SEQPACKET, control);
  pair(SOCK_STREAM, stream);
  pid_t vmm = fork();
  check(vmm < 0, "fork");
  if (vmm == 0) become(argv[1], control[1], stream[1], tap, began);
  close(control[1]);
  close(stream[1]);
  close(tap);
  for (int fd = CONTROL - 1; fd <= LAST; fd++) close(fd);
  printf("pid %d\n", vmm);
  char packet[512];
  ssize_t size;
  while ((size = recv(control[0], packet, sizeof(packet) - 1, 0)) > 0) {
    long long after = now() - *began;
    packet[size] = 0;
    const char *text = packet[0] == FAILURE && size > FAILURE_HEAD ? packet + FAILURE_HEAD : "";
    printf("said %d %lld %s\n", packet[0], after, text);
  }
  int status;
  check(waitpid(vmm, &status, 0) != vmm, "waitpid");
  printf("ended %d %lld\n", status, now() - *began);
  return 0;
}
