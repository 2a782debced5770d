// The init of the guests that are measured beside each other: no C library, a handful of pages. What it does says
// the kernel's command line, of which unknown words of the form NAME=VALUE become its environment:
//
//   act=reset    resets the machine, at which both VMMs end
//   act=idle     waits for ever
//   act=serial   says `ready` on the serial port and waits for a byte: `i` is followed by waiting for ever, anything else
//                by a reset
//   (nothing)    says HELLO on the control port of Casemate's guests, at which a template is taken, and waits for a byte:
//                followed by waiting for ever where the disk has a file /idle, else by a reset
#define O_RDONLY 0
#define O_RDWR 2
enum { READ = 0, WRITE = 1, OPEN = 2, IOCTL = 16, PAUSE = 34, NANOSLEEP = 35, REBOOT = 169 };
enum { TCGETS = 0x5401, TCSETS = 0x5402, HELLO = 64, PROTOCOL_VERSION = 1 };
enum { MAGIC = 0xfee1dead, MAGIC2 = 672274793, AUTOBOOT = 0x1234567 };

static long call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
}

static long open(const char *path, long flags) { return call(OPEN, (long)path, flags, 0, 0); }

static void idle(void) {
  for (;;) call(PAUSE, 0, 0, 0, 0);
}

// As `reboot=` on the command line says: by the keyboard controller (k) or a triple fault (t).
static void reset(void) {
  call(REBOOT, MAGIC, MAGIC2, AUTOBOOT, 0);
  idle();
}

// Devices come up beside init.
static long wait_for(const char *path) {
  long moment[2] = {0, 1000000};
  long fd;
  while ((fd = open(path, O_RDWR)) < 0) call(NANOSLEEP, (long)moment, 0, 0, 0);
  return fd;
}

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
  unsigned char hello[16] = {HELLO, 0, 0, 0, 8, 0, 0, 0, PROTOCOL_VERSION};
  long fd = wait_for("/dev/vport0p1");
  call(WRITE, fd, (long)hello, sizeof(hello), 0);
  byte_from(fd);
  if (is_idle) idle();
  reset();
}

static int begins(const char *text, const char *with) {
  while (*with != 0) if (*text++ != *with++) return 0;
  return 1;
}

// The stack as a program finds it: number of arguments, arguments, null, environment, null.
__attribute__((used)) static void begin(char **stack) {
  char **environment = stack + 1 + (long)stack[0] + 1;
  for (; *environment != 0; environment++) {
    if (begins(*environment, "act=reset")) reset();
    if (begins(*environment, "act=idle")) idle();
    if (begins(*environment, "act=serial")) on_serial();
  }
  on_control_port();
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
