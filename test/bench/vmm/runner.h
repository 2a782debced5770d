// What the programs share that start a VMM for the benches.
#ifndef RUNNER_H
#define RUNNER_H
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(int failed, const char *what) {
  if (!failed) return;
  perror(what);
  exit(1);
}

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

#endif
