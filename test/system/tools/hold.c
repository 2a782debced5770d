/*
 * Stops one thread of a process, while the others run on, and says "held" once it has stopped. The thread goes on when
 * this program ends.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int failed, const char *what) {
    if (!failed) return;
    perror(what);
    exit(1);
}

int main(int count, char **words) {
    int status;
    int thread = count == 2 ? atoi(words[1]) : 0;
    check(ptrace(PTRACE_SEIZE, thread, 0, 0) < 0, "PTRACE_SEIZE");
    check(ptrace(PTRACE_INTERRUPT, thread, 0, 0) < 0, "PTRACE_INTERRUPT");
    check(waitpid(thread, &status, __WALL) != thread, "waitpid");
    puts("held");
    fflush(stdout);
    for (;;) pause();
}
