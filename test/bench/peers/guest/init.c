// The init of the guests that are measured beside each other: no C library, a handful of pages. What it does says
// the kernel's command line, of which unknown words of the form NAME=VALUE become its environment:
//
//   act=reset    resets the machine, at which both VMMs end
//   act=idle     waits for ever
//   act=serial   says `ready` on the serial port and waits for a byte: `i` is followed by waiting for ever, anything else
//                by a reset
//   (nothing)    says HELLO on the control port of Casemate's guests, at which a template is taken, and waits for a byte:
//                followed by waiting for ever where the disk has a file /idle, else by a reset
#include "guest.h"

enum { TCGETS = 0x5401, TCSETS = 0x5402 };

static char byte_from(long fd) {
  char byte = 0;
  while (call(READ, fd, (long)&byte, 1, 0) != 1) {}
  return byte;
}

static void on_serial(void) {
  struct { unsigned input, output, control, local; unsigned char line, characters[19]; } terminal;
  long fd = wait_for("/dev/ttyS0");
  call(IOCTL, fd, TCGETS, (long)&terminal, 0);
  terminal.local = 0;             // neither whole lines nor an echo
  terminal.characters[6] = 1;     // VMIN
  terminal.characters[5] = 0;     // VTIME
  call(IOCTL, fd, TCSETS, (long)&terminal, 0);
  call(WRITE, fd, (long)"ready\n", 6, 0);
  if (byte_from(fd) == 'i') idle();
  reset();
}

static void on_control_port(void) {
  long is_idle = open("/idle", O_RDONLY) >= 0;
  long fd = say_hello();
  byte_from(fd);
  if (is_idle) idle();
  reset();
}

__attribute__((used)) static void begin(char **stack) {
  for (char **environment = environment_of(stack); *environment != 0; environment++) {
    if (begins(*environment, "act=reset")) reset();
    if (begins(*environment, "act=idle")) idle();
    if (begins(*environment, "act=serial")) on_serial();
  }
  on_control_port();
}
