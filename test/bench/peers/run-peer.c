// Runs a program and says when it ended: Node cannot take the time of an exec.
//
// Usage: run-peer BYTE SOCKET BODY OUTPUT PROGRAM [ARGUMENT]...
//   BYTE    is in the program's standard input from the start, which stays open; `-` for none
//   SOCKET  where the program serves Firecracker's API; as soon as it takes a connection BODY is sent to /snapshot/load; `-` for neither
//   OUTPUT  a file for what the program says on its standard output; then there is a tap to open, too (../vmm/echo-tap.h); `-` for neither
// A line on standard output for each thing that happens:
//   pid N
//   loaded NS                  the API's answer 204, nanoseconds after execve was called
//   ended STATUS NS            as of waitpid
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../vmm/echo-tap.h"
#include "../vmm/runner.h"

enum { BYTE = 1, SOCKET, BODY, OUTPUT, PROGRAM, LOOK_US = 100 };

static void become(char **argv, int input, int output, volatile long long *began) {
  char *environment[] = {NULL};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(input < 0 ? null : input, 0);
  dup2(output < 0 ? null : output, 1);
  dup2(null, 2);
  *began = now();
  execve(argv[0], argv, environment);
  _exit(127);
}

// Until the program listens. One that has ended never will.
static int dial(const char *path, pid_t program) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(fd < 0, "socket");
  while (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
    siginfo_t info = {0};
    waitid(P_PID, program, &info, WEXITED | WNOHANG | WNOWAIT);
    if (info.si_pid != 0) return -1;
    usleep(LOOK_US);
  }
  return fd;
}

static int load(const char *path, const char *body, pid_t program) {
  int fd = dial(path, program);
  if (fd < 0) return 0;
  dprintf(fd, "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
  char answer[1024] = "";
  ssize_t size = read(fd, answer, sizeof(answer) - 1);
  if (size >= 12 && memcmp(answer + 9, "204", 3) == 0) return 1;
  fprintf(stderr, "run-peer: %s\n", answer);
  kill(program, SIGKILL);
  return 0;
}

int main(int argc, char **argv) {
  check(argc <= PROGRAM, "usage: run-peer BYTE SOCKET BODY OUTPUT PROGRAM [ARGUMENT]...");
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setvbuf(stdout, NULL, _IOLBF, 0);
  long long *began = mmap(NULL, sizeof(*began), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check(began == MAP_FAILED, "mmap");
  int input[2] = {-1, -1};
  if (strcmp(argv[BYTE], "-") != 0) {
    check(pipe2(input, O_CLOEXEC) != 0, "pipe2");
    check(write(input[1], argv[BYTE], 1) != 1, "write");
  }
  int output = -1;
  if (strcmp(argv[OUTPUT], "-") != 0) {
    output = open(argv[OUTPUT], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    check(output < 0, argv[OUTPUT]);
    close(make_echo_tap(1));
  }
  pid_t program = fork();
  check(program < 0, "fork");
  if (program == 0) become(argv + PROGRAM, input[0], output, began);
  printf("pid %d\n", program);
  if (strcmp(argv[SOCKET], "-") != 0 && load(argv[SOCKET], argv[BODY], program)) {
    printf("loaded %lld\n", now() - *began);
  }
  int status;
  check(waitpid(program, &status, 0) != program, "waitpid");
  printf("ended %d %lld\n", status, now() - *began);
  return 0;
}
