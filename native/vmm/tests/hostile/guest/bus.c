/* Ports, addresses, model-specific registers and CPUID: all there are, or a stride through them. */
#include "guest.h"

#define IO_APIC 0xfec00000u

/* More text than is kept. */
static void flood(void)
{
    for (u32 at = 0; at < argument[0]; at++)
        outb(0x3f8, "0123456789abcde\n"[at & 15]);
}

/* Every register of the port with every value; the divisor latch is closed again at last. */
static void serial(void)
{
    u32 wrong = 0;
    for (u32 value = 0; value < 256; value++) {
        for (u16 port = 0x3f9; port < 0x400; port++)
            outb(port, value);
        wrong += inb(0x3fd) != 0x60 || inb(0x3fa) != 1;
    }
    outb(0x3fb, 3);
    tell("wrong", wrong);
}

/* String instructions: one exit with many bytes for one port, up to a page of them. */
static void strings(void)
{
    u32 count = 3000, at = BUFFERS, port = argument[0];
    for (u32 byte = 0; byte < 4096; byte++)
        AT(u8, BUFFERS + byte) = 'x';
    __asm__ volatile("cld; rep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory");
    at = BUFFERS, count = 1024;
    __asm__ volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(port) : "memory");
    at = BUFFERS, count = 1024;
    __asm__ volatile("rep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
    outb(0x3fb, 3);
    say("\nstrings\n");
}

/* What the serial port, the reset line and the in-kernel interrupt controllers own. */
static int owned(u32 port, u32 width)
{
    static const u16 ranges[][2] = {{0x20, 0x22}, {0x60, 0x61}, {0x64, 0x65}, {0xa0, 0xa2}, {0x3f8, 0x400}, {0x4d0, 0x4d2}};
    for (u32 at = 0; at < sizeof ranges / sizeof *ranges; at++)
        if (port < ranges[at][1] && port + width > ranges[at][0])
            return 1;
    return 0;
}

/* The first 4096 ports and some beyond, in a width of the command line's choice: what nobody owns reads as ones, even where it wraps. */
static void ports(void)
{
    u32 wrong = 0, width = argument[0];
    for (u32 port = 0; port < 0x10000; port += port < 0x1000 || port >= 0xfff0 ? 1 : 2 * width + 5) {
        if (owned(port, width))
            continue;
        if (width == 1) {
            outb(port, 0);
            wrong += inb(port) != 0xff;
        } else if (width == 2) {
            outw(port, 0);
            wrong += inw(port) != 0xffff;
        } else {
            outl(port, 0);
            wrong += inl(port) != 0xffffffff;
        }
    }
    tell("wrong", wrong);
}

/* Every command of the keyboard controller but the one that resets, and that one where it is data. */
static void keyboard(void)
{
    for (u32 value = 0; value < 256; value++) {
        outb(0x60, value);
        if (value != 0xfe)
            outb(0x64, value);
    }
    tell("status", inb(0x64));
}

static void reset(void)
{
    outb(0x64, argument[0]);
    say("not reset\n");
}

/* 8 bytes in one access: what a compare-and-exchange does to a place that is no memory. */
static u64 exchange(u32 address, u64 value)
{
    u64 seen = ~0ull;
    __asm__ volatile("cmpxchg8b (%1)" : "+A"(seen) : "r"(address), "b"((u32)value), "c"((u32)(value >> 32)) : "memory", "cc");
    return seen;
}

/* A stride through everything from the end of memory to 4 GiB, in all widths, and the edges of windows. */
static void addresses(void)
{
    u32 wrong = 0, tried = 0;
    for (u32 at = MEMORY_END; at >= MEMORY_END; at += 0x00f1b003) {
        u32 page = at & ~0xfffu;
        if ((page >= 0xd0000000u && page <= 0xd000b000u) || page == LOCAL_APIC || page == IO_APIC)
            continue;
        AT(u8, at) = 0;
        AT(u16, at) = 0;
        AT(u32, at) = 0;
        wrong += AT(u8, at) != 0xff || AT(u16, at) != 0xffff || AT(u32, at) != 0xffffffff;
        tried++;
    }
    static const u32 edges[] = {MEMORY_END - 2, MEMORY_END - 1, 0xd0000000u - 2, 0xd0000ffeu, 0xd0001ffdu, 0xd0006fffu,
                                0xd0006ffeu, 0xfffffff0u};
    for (u32 at = 0; at < sizeof edges / sizeof *edges; at++) {
        AT(u32, edges[at]) = 0x01020304;
        tried += AT(u32, edges[at]) != 0x12345678;
    }
    tell("tried", tried);
    tell("wrong", wrong);
}

/* Accesses of 8 bytes: beyond the devices and to every register of one. */
static void wide(void)
{
    u32 wrong = 0;
    start(RNG);
    for (u32 at = 0xc0000000u; at < 0xd0000000u; at += 0x01000008)
        wrong += exchange(at, 0) != ~0ull;
    for (u32 offset = 0; offset < 0x200; offset += 8)
        exchange(window(RNG) + offset, 0x0102030405060708ull);
    tell("wrong", wrong);
    tell("status", get(RNG, STATUS));
}

static u32 read_msr(u32 index, u64 *value)
{
    u32 before = faults;
    skip = 2;
    __asm__ volatile("rdmsr" : "=A"(*value) : "c"(index), "0"(0ull) : "memory");
    skip = 0;
    return faults == before;
}

static u32 write_msr(u32 index, u64 value)
{
    u32 before = faults;
    skip = 2;
    __asm__ volatile("wrmsr" ::"c"(index), "A"(value) : "memory");
    skip = 0;
    return faults == before;
}

/* `argument[1]` registers from `argument[0]` on: read, written as they were, and where they cannot be read, with ones. */
static void registers(void)
{
    u32 first = argument[0], readable = 0, writable = 0;
    for (u32 index = first; index < first + (u32)argument[1]; index++) {
        u64 value;
        if (read_msr(index, &value))
            readable++, writable += write_msr(index, value);
        else
            writable += write_msr(index, 0), writable += write_msr(index, ~0ull);
    }
    tell("readable", readable);
    tell("writable", writable);
    tell("faults", faults);
}

/* The local APIC's registers as MSRs, in all of their range. */
static void x2apic(void)
{
    u64 base;
    read_msr(0x1b, &base);
    say("now\n");
    write_msr(0x1b, base | 1 << 10);
    for (u32 index = 0x800; index < 0x900; index++) {
        u64 value;
        if (index == 0x830)
            continue;
        read_msr(index, &value);
        write_msr(index, 0);
        write_msr(index, ~0ull);
    }
    tell("faults", faults);
}

static void cpuid(u32 leaf, u32 index, u32 *seen)
{
    __asm__ volatile("cpuid" : "=a"(seen[0]), "=b"(seen[1]), "=c"(seen[2]), "=d"(seen[3]) : "0"(leaf), "2"(index));
}

/* Every leaf of the three ranges; then what must not be there. */
static void identify(void)
{
    static const u32 bases[] = {0, 0x40000000, 0x80000000, 0x20000000, 0xc0000000, 0xfffffff0};
    u32 seen[4], leaves = 0;
    for (u32 base = 0; base < 6; base++)
        for (u32 leaf = 0; leaf < (base == 5 ? 0x10u : 0x40u); leaf++)
            for (u32 index = 0; index < 4; index++)
                cpuid(bases[base] + leaf, index, seen), leaves++;
    tell("leaves", leaves);
    cpuid(1, 0, seen);
    tell("vmx", seen[2] >> 5 & 1);
    tell("hypervisor", seen[2] >> 31);
    tell("processors", seen[1] >> 16 & 255);
    tell("deadline", seen[2] >> 24 & 1);
    cpuid(6, 0, seen);
    tell("always", seen[0]);
    cpuid(11, 1, seen);
    tell("cores", seen[1]);
    cpuid(0x80000001, 0, seen);
    tell("svm", seen[2] >> 2 & 1);
    cpuid(10, 0, seen);
    tell("counters", seen[0] | seen[1] | seen[2] | seen[3]);
    cpuid(0x40000001, 0, seen);
    tell("beyond the clock", seen[0] & ~0x01000009u);
}

const struct attack bus_attacks[] = {
    {"flood", flood},         {"serial", serial}, {"strings", strings}, {"ports", ports},       {"keyboard", keyboard},
    {"reset", reset},         {"addresses", addresses}, {"wide", wide}, {"msr", registers}, {"x2apic", x2apic}, {"cpuid", identify},
    {0, 0},
};
