/* The processors themselves, and the controllers that interrupt them. */
#include "guest.h"

#define IO_APIC 0xfec00000u

/* No interrupt table: the first exception is the third. */
static void triple(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) none = {0, 0};
    say("now\n");
    __asm__ volatile("lidt %0; int3" ::"m"(none));
    say("alive\n");
}

/* Asleep for ever: no interrupt can come. */
static void halt(void)
{
    say("now\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void spin(void)
{
    say("now\n");
    for (;;)
        pause();
}

/* Code where no memory is, or a device. */
static void jump_to(void)
{
    say("now\n");
    ((void (*)(void))(u32)argument[0])();
    say("back\n");
}

/* Code in the page of a ring, changed by its own stores and by what a device writes over it. */
static void modify(void)
{
    u32 sum = 0;
    start(RNG);
    u32 code = used(RNG, 0) + 0x800;
    u32 (*run)(void) = (u32(*)(void))code;
    for (u32 round = 0; round < 200; round++) {
        AT(u8, code) = 0xb8; /* mov $round, %eax; ret */
        AT(u32, code + 1) = round;
        AT(u8, code + 5) = 0xc3;
        sum += run() == round;
    }
    tell("right", sum);
    describe(RNG, 0, 0, code, 64, WRITE, 0);
    publish(RNG, 0, 0);
    answered(RNG, 0);
    say("now\n");
    run();
    say("back\n");
}

/* Every kind of message between processors, to everybody there is and is not; starts at pages of garbage. */
static void messages(void)
{
    enable_apic();
    for (u32 round = 0; round < 2000; round++) {
        u32 value = random() & 0x000cffff;
        /* INIT and STARTUP to others only at first: to itself they end the guest. */
        if ((value >> 8 & 7) >= 4)
            value = (value & ~0xc0000u) | 0xc0000u;
        command(random() & 7, value);
    }
    say("others\n");
    command(argument[0], 0x4500);
    for (u32 vector = 0; vector < 256; vector++)
        command(argument[0], 0x4600 | vector);
    say("started\n");
}

/* The other processor is sent back to its start again and again, wherever it is. */
static volatile u32 starts;

static void count(void) { starts++; }

static void restarts(void)
{
    for (u32 round = 0; round < argument[0]; round++)
        start_other(count);
    say("sent\n");
    while (starts == 0)
        pause();
}

/* Virtualisation inside, which this processor does not have: what is not refused does not come to its end. */
static void nested(void)
{
    skip = 3;
    say("now\n");
    switch (argument[0]) {
    case 0: /* CR4.VMXE */
        __asm__ volatile("mov %0, %%cr4" ::"r"(1 << 13));
        break;
    case 1: /* VMXON */
        skip = 4;
        __asm__ volatile("vmxon (%0)" ::"a"(BUFFERS) : "memory", "cc");
        break;
    case 2: /* EFER.SVME */
        skip = 2;
        __asm__ volatile("wrmsr" ::"c"(0xc0000080), "a"(1 << 12), "d"(0));
        break;
    case 3:
        __asm__ volatile("vmrun" ::"a"(BUFFERS));
        break;
    default:
        __asm__ volatile("vmlaunch" ::: "cc");
    }
    skip = 0;
    while (faults == 0)
        pause();
}

/* Random words for every controller's registers, and interrupts of a device meanwhile. */
static void controllers(void)
{
    static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0xcf8, 0xcfc};
    start(RNG);
    for (u32 round = 0; round < 300; round++) {
        for (u32 port = 0; port < sizeof ports / sizeof *ports; port++)
            outb(ports[port], random());
        for (u32 entry = 0; entry < 0x60; entry++) {
            AT(u32, IO_APIC) = entry;
            AT(u32, IO_APIC + 0x10) = random();
        }
        for (u32 offset = 0x20; offset < 0x400; offset += 0x10)
            if (offset != 0x300)
                AT(u32, LOCAL_APIC + offset) = random();
        describe(RNG, 0, 0, BUFFERS, 16, WRITE, 0);
        publish(RNG, 0, 0);
        answered(RNG, 0);
    }
    tell("answered", used_index(RNG, 0));
    __asm__ volatile("sti; nop; nop; nop; cli");
    say("open\n");
}

/* The second processor spoils a descriptor and mends it again, until it is told to stop. */
static volatile u32 spoiled;

static void spoil(void)
{
    u32 descriptor = ring(RNG, 0);
    for (spoiled = 1; spoiled == 1;) {
        AT(u32, descriptor) = MEMORY_END - 4;
        AT(u32, descriptor + 8) = 0x10000;
        AT(u16, descriptor + 12) = INDIRECT;
        AT(u16, descriptor + 14) = 0xffff;
        AT(u32, descriptor) = BUFFERS;
        AT(u32, descriptor + 8) = 64;
        AT(u16, descriptor + 12) = WRITE;
        AT(u16, descriptor + 14) = 0;
    }
}

/* A descriptor that another processor changes while the device reads it: it is good or refused, never half of each. */
static void race(void)
{
    start(RNG);
    start_other(spoil);
    while (spoiled == 0)
        pause();
    say("both\n");
    for (u32 round = 0; round < 5000; round++) {
        publish(RNG, 0, 0);
        answered(RNG, 0);
    }
    spoiled = 2;
}

/* Every hypercall that KVM knows and more: the clock is all that this guest was shown. */
static void hypercalls(void)
{
    u32 first = argument[0], done = 0;
    for (u32 number = first; number < first + (u32)argument[1]; number++) {
        u32 answer = number;
        skip = 3;
        __asm__ volatile(".byte 0x0f, 0x01, 0xc1" : "+a"(answer) : "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
        skip = 0;
        tell("call", number);
        tell("gives", answer);
        done++;
    }
    tell("done", done);
}

/* All memory is touched, so that all of it is the host's to give. */
static void touch(void)
{
    for (u32 at = BUFFERS; at < MEMORY_END; at += 0x1000)
        AT(u32, at) = at;
    u32 wrong = 0;
    for (u32 at = BUFFERS; at < MEMORY_END; at += 0x1000)
        wrong += AT(u32, at) != at;
    tell("wrong", wrong);
}

const struct attack processor_attacks[] = {
    {"triple", triple}, {"halt", halt},     {"spin", spin},   {"jump-to", jump_to},       {"modify", modify}, {"messages", messages},
    {"restarts", restarts}, {"nested", nested}, {"controllers", controllers}, {"race", race}, {"hypercalls", hypercalls}, {"touch", touch}, {0, 0},
};
