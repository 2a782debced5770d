// The init of the guest that measures its own devices, by its own clock, and says so in its kernel's log in lines
// `measured NAME AMOUNT NANOSECONDS`, AMOUNT being requests or bytes. Words of the command line say what there is:
//
//   checked=DISK   a disk to read (ours verifies what is read), AMOUNT_READ bytes or more
//   fill=DISK      a disk to write that much to, which is not measured
//   plain=DISK     the same, of which nobody verifies anything
//   net=           a network card behind which somebody sends datagrams back (test/bench/vmm/echo-tap.h)
//   pipe=          the control port of Casemate's guests: output goes through it
//   serial=        no such port: output goes out by the serial port
//
// It resets the machine when it is done.
#include "guest.h"

#define O_DIRECT 040000
enum { PREAD = 17, PWRITE = 18, SOCKET = 41, CONNECT = 42, CLOCK_GETTIME = 228, MONOTONIC = 1 };
enum { BLOCK = 4096, MIB = 1 << 20, SPAN = 32 * MIB };
enum { ROUNDS = 5, RANDOM_READS = 200, PIPE_BYTES = MIB, SERIAL_BYTES = 1 << 11, DATAGRAMS = 50, DATAGRAM = 64 };
enum { AF_INET = 2, SOCK_DGRAM = 2, IFF_UP = 1, SIOCSIFFLAGS = 0x8914, SIOCSIFADDR = 0x8916, SIOCSIFNETMASK = 0x891c };
// Frames of the control pipe, docs/formats.md section 7.
enum { UNIQUE = 1, CONFIG = 2, CREDIT = 6, UNIQUE_DONE = 65, STARTED = 66, STDOUT = 67, HEADER = 8, PAYLOAD = 8192 };

static unsigned char memory[MIB] __attribute__((aligned(4096)));
static long log;

static long now(void) {
  long time[2];
  call(CLOCK_GETTIME, MONOTONIC, (long)time, 0, 0);
  return time[0] * 1000000000L + time[1];
}

static char *put(char *at, const char *text) {
  while (*text != 0) *at++ = *text++;
  return at;
}

static char *put_number(char *at, long number) {
  char digits[24];
  int first = sizeof(digits) - 1;
  digits[first] = 0;
  do digits[--first] = '0' + number % 10; while ((number /= 10) != 0);
  return put(at, digits + first);
}

// Through the kernel's log: it writes to a serial port without interrupts, and at the highest level always.
static void report(const char *name, const char *of, long amount, long nanoseconds) {
  static char line[128];
  char *end = put(put(put(line, "<0>measured "), name), of);
  end = put_number(put(put_number(put(end, " "), amount), " "), nanoseconds);
  *end++ = '\n';
  call(WRITE, log, (long)line, end - line, 0);
}

static void read_at(long fd, long size, long offset) {
  if (call(PREAD, fd, (long)memory, size, offset) != size) {
    report("nothing: a read failed", "", offset, size);
    reset();
  }
}

static void fill(const char *disk) {
  long fd = open(disk, O_RDWR | O_DIRECT);
  for (int at = 0; at < MIB; at++) memory[at] = at * 7;
  for (long offset = 0; offset < SPAN; offset += MIB) call(PWRITE, fd, (long)memory, MIB, offset);
}

// Past the guest's page cache, so that each read is a request to the device.
static void read_disk(const char *disk, const char *of) {
  long fd = open(disk, O_RDONLY | O_DIRECT);
  unsigned random = 1;
  for (int round = 0; round < ROUNDS; round++) {
    long began = now();
    for (int one = 0; one < RANDOM_READS; one++) {
      random = random * 1664525 + 1013904223;
      read_at(fd, BLOCK, (long)(random >> 8) % (SPAN / BLOCK) * BLOCK);
    }
    report("disk.random.", of, RANDOM_READS, now() - began);
    began = now();
    for (long offset = 0; offset < SPAN; offset += MIB) read_at(fd, MIB, offset);
    report("disk.sequential.", of, SPAN, now() - began);
  }
}

static void ask(long fd, long request, unsigned short word, unsigned address) {
  struct { char name[16]; unsigned short word, port; unsigned address, zero[4]; } wanted = {"eth0", word, 0, address, {0}};
  if (call(IOCTL, fd, request, (long)&wanted, 0) != 0) report("nothing: the card has no interface", "", request, 0);
}

// One datagram there and back at a time.
static void exchange_datagrams(void) {
  struct { unsigned short family, port; unsigned address, zero[2]; } peer = {AF_INET, 7 << 8, 0x0100630a, {0}};
  long fd = call(SOCKET, AF_INET, SOCK_DGRAM, 0, 0);
  ask(fd, SIOCSIFADDR, AF_INET, 0x0200630a);
  ask(fd, SIOCSIFNETMASK, AF_INET, 0x00ffffff);
  ask(fd, SIOCSIFFLAGS, IFF_UP, 0);
  call(CONNECT, fd, (long)&peer, sizeof(peer), 0);
  // The first finds the way: it is not measured.
  for (int round = 0; round <= ROUNDS; round++) {
    long began = now();
    for (int one = 0; one < DATAGRAMS; one++) {
      call(WRITE, fd, (long)memory, DATAGRAM, 0);
      call(READ, fd, (long)memory, DATAGRAM, 0);
    }
    if (round > 0) report("net.echo", "", DATAGRAMS, now() - began);
  }
}

static void send(long fd, unsigned char kind, long length) {
  unsigned char header[HEADER] = {kind, 0, 0, 0, length, length >> 8, length >> 16, length >> 24};
  for (int at = 0; at < HEADER; at++) memory[at] = header[at];
  call(WRITE, fd, (long)memory, HEADER + length, 0);
}

// Takes a frame and returns its kind; its payload begins at `memory`.
static unsigned char take(long fd) {
  unsigned char header[HEADER];
  long length = 0;
  for (long have = 0; have < HEADER;) {
    long count = call(READ, fd, (long)header + have, HEADER - have, 0);
    if (count > 0) have += count;
  }
  for (int at = HEADER - 1; at >= HEADER / 2; at--) length = length << 8 | header[at];
  for (long have = 0; have < length;) {
    long count = call(READ, fd, (long)memory + have, length - have, 0);
    if (count > 0) have += count;
  }
  return header[0];
}

static long take_credit(long fd) {
  while (take(fd) != CREDIT || memory[0] != 1) {}
  return memory[1] | memory[2] << 8 | memory[3] << 16 | (long)memory[4] << 24;
}

static void write_pipe(void) {
  long fd = say_hello();
  while (take(fd) != UNIQUE) {}
  send(fd, UNIQUE_DONE, 0);
  while (take(fd) != CONFIG) {}
  for (int at = 0; at < 4; at++) memory[HEADER + at] = at == 0;
  send(fd, STARTED, 4);
  long credit = take_credit(fd);
  for (int round = 0; round < ROUNDS; round++) {
    long began = now();
    for (long sent = 0; sent < PIPE_BYTES; sent += PAYLOAD) {
      while (credit < PAYLOAD) credit += take_credit(fd);
      send(fd, STDOUT, PAYLOAD);
      credit -= PAYLOAD;
    }
    report("output", "", PIPE_BYTES, now() - began);
  }
}

static void write_serial(void) {
  static char line[SERIAL_BYTES];
  long serial = wait_for("/dev/ttyS0");
  for (int at = 0; at < SERIAL_BYTES; at++) line[at] = '.';
  line[SERIAL_BYTES - 1] = '\n';
  for (int round = 0; round < ROUNDS; round++) {
    long began = now();
    for (long sent = 0; sent < SERIAL_BYTES;) sent += call(WRITE, serial, (long)line + sent, SERIAL_BYTES - sent, 0);
    report("output", "", SERIAL_BYTES, now() - began);
  }
}

__attribute__((used)) static void begin(char **stack) {
  log = open("/dev/kmsg", O_RDWR);
  for (char **environment = environment_of(stack); *environment != 0; environment++) {
    if (begins(*environment, "checked=")) read_disk(*environment + 8, "checked");
    if (begins(*environment, "fill=")) fill(*environment + 5);
    if (begins(*environment, "plain=")) read_disk(*environment + 6, "plain");
    if (begins(*environment, "net=")) exchange_datagrams();
    if (begins(*environment, "pipe=")) write_pipe();
    if (begins(*environment, "serial=")) write_serial();
  }
  reset();
}
