/*
 * The seccomp filters of threads as the kernel holds them: for each thread named and each of its filters, the first
 * installed first, a line "TID HEX" with the program as struct sock_filter. Ends with 2 where the kernel gives no
 * filter away (it has to be built with CONFIG_CHECKPOINT_RESTORE, and to be asked by root).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { INSTRUCTIONS_MAX = 4096 };

static struct sock_filter program[INSTRUCTIONS_MAX];

static void fail(const char *what) {
    int unable = errno == EACCES || errno == EIO || errno == EINVAL;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(unable ? 2 : 1);
}

static void print(int thread, long instructions) {
    const unsigned char *bytes = (const unsigned char *)program;
    printf("%d ", thread);
    for (size_t at = 0; at < (size_t)instructions * sizeof *program; at++) printf("%02x", bytes[at]);
    printf("\n");
}

static void look(int thread) {
    int status;
    if (ptrace(PTRACE_SEIZE, thread, 0, 0) < 0) fail("PTRACE_SEIZE");
    if (ptrace(PTRACE_INTERRUPT, thread, 0, 0) < 0) fail("PTRACE_INTERRUPT");
    if (waitpid(thread, &status, __WALL) != thread) fail("waitpid");
    for (int number = 0;; number++) {
        long instructions = ptrace(PTRACE_SECCOMP_GET_FILTER, thread, number, program);
        if (instructions < 0 && errno == ENOENT) break;
        if (instructions < 0) fail("PTRACE_SECCOMP_GET_FILTER");
        print(thread, instructions);
    }
    if (ptrace(PTRACE_DETACH, thread, 0, 0) < 0) fail("PTRACE_DETACH");
}

int main(int count, char **words) {
    for (int at = 1; at < count; at++) look(atoi(words[at]));
    return 0;
}
