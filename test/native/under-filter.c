// Makes system calls under a seccomp program and prints what came of each: a line "errno <n>" or
// "signal <n>". Usage: under-filter PROGRAM NR:ARG:ARG:... Each call is made in a child of its own.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sock_filter filter[4096];

static int call(char *text) {
  unsigned long words[7] = {0};
  int count = 0;
  for (char *word = strtok(text, ":"); word != NULL && count < 7; word = strtok(NULL, ":")) {
    words[count++] = strtoul(word, NULL, 0);
  }
  long result = syscall((long)words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
  return result < 0 ? errno : 0;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  int fd = open(argv[1], O_RDONLY);
  ssize_t size = read(fd, filter, sizeof(filter));
  if (size <= 0) return 2;
  struct sock_fprog program = {.len = (unsigned short)(size / 8), .filter = filter};
  for (int index = 2; index < argc; index += 1) {
    pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) _exit(254);
      _exit(call(argv[index]));
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("signal %d\n", WTERMSIG(status));
    else printf("errno %d\n", WEXITSTATUS(status));
  }
  return 0;
}
