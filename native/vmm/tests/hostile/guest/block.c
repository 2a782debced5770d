/* Requests of disks. */
#include "guest.h"

enum { READ = 0, WRITE_OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
#define HEADER BUFFERS
#define DATA (BUFFERS + 0x10000)
#define OUTCOME (BUFFERS + 0x8000)
/* Where no answer of a device is. */
#define UNTOUCHED 0xee

static u32 next_descriptor;

static void header(u32 kind, u64 sector)
{
    AT(u32, HEADER) = kind;
    AT(u32, HEADER + 4) = 0;
    AT(u32, HEADER + 8) = sector;
    AT(u32, HEADER + 12) = sector >> 32;
    AT(u8, OUTCOME) = UNTOUCHED;
    next_descriptor = 0;
}

/* One more segment of the chain that is being made. */
static void segment(u32 slot, u32 address, u32 length, u32 flags)
{
    describe(slot, 0, next_descriptor, address, length, flags | NEXT, next_descriptor + 1);
    next_descriptor++;
}

/* Ends the chain with the byte for the outcome, and gives what the device writes there. */
static u32 outcome(u32 slot)
{
    describe(slot, 0, next_descriptor, OUTCOME, 1, WRITE, 0);
    publish(slot, 0, 0);
    answered(slot, 0);
    return AT(u8, OUTCOME);
}

static u32 ask(u32 slot, u32 kind, u64 sector, u32 length)
{
    header(kind, sector);
    segment(slot, HEADER, 16, 0);
    if (length)
        segment(slot, DATA, length, kind == READ || kind == GET_ID ? WRITE : 0);
    return outcome(slot);
}

static u32 checksum(u32 address, u32 length)
{
    u32 sum = 0;
    for (u32 at = 0; at < length; at++)
        sum = sum * 31 + AT(u8, address + at);
    return sum;
}

/* The header in pieces of 1, 2, 5 and 8 bytes, the data in odd ones: the same bytes as in one piece. */
static void split(void)
{
    static const u16 pieces[] = {1, 2, 5, 8};
    static const u16 parts[] = {1, 511, 513, 3, 3068};
    start(IMAGE);
    tell("whole", ask(IMAGE, READ, 8, 4096));
    u32 expected = checksum(DATA, 4096);
    for (u32 at = 0; at < 4096; at++)
        AT(u8, DATA + at) = 0;
    header(READ, 8);
    for (u32 at = 0, piece = 0; piece < 4; at += pieces[piece++])
        segment(IMAGE, HEADER + at, pieces[piece], 0);
    for (u32 at = 0, part = 0; part < 5; at += parts[part++])
        segment(IMAGE, DATA + at, parts[part], WRITE);
    tell("parts", outcome(IMAGE));
    tell("same", expected == checksum(DATA, 4096) && expected != 0);
}

/* Sectors at, beyond and far beyond the end, where sums and products of 64 bits wrap. None is served. */
static void beyond(void)
{
    u32 slot = argument[0], sectors, served = 0, refused = 0;
    static const u32 kinds[] = {READ, WRITE_OUT};
    start(slot);
    sectors = get(slot, CONFIG);
    const u64 at[] = {sectors, sectors + 1, 1ull << 31, 1ull << 32, 1ull << 54, 1ull << 55, (1ull << 55) - 1,
                      1ull << 63, ~0ull, ~0ull - 7};
    tell("sectors", sectors);
    for (u32 kind = 0; kind < 2; kind++) {
        for (u32 index = 0; index < sizeof at / sizeof *at; index++) {
            u32 said = ask(slot, kinds[kind], at[index], 512);
            served += said == 0, refused += said == 1;
        }
        served += ask(slot, kinds[kind], sectors - 1, 1024) != 1;
        served += ask(slot, kinds[kind], 0, 511) != 1;
        served += ask(slot, kinds[kind], 0, 513) != 1;
    }
    tell("served", served);
    tell("refused", refused);
    tell("last", ask(slot, READ, sectors - 1, 512));
}

/* Everything that would change a disk which is read-only, with features taken that it does not have. */
static void read_only(void)
{
    u32 slot = argument[0], served = 0;
    start(slot);
    for (u32 at = 0; at < 0x10000; at += 4)
        AT(u32, DATA + at) = random();
    for (u32 sector = 0; sector < 64; sector += 8)
        served += ask(slot, WRITE_OUT, sector, 4096) == 0;
    AT(u32, DATA) = 0;
    AT(u32, DATA + 4) = 0;
    AT(u32, DATA + 8) = 8;
    AT(u32, DATA + 12) = 0;
    served += ask(slot, DISCARD, 0, 16) == 0;
    served += ask(slot, WRITE_ZEROES, 0, 16) == 0;
    AT(u32, DATA + 12) = 1;
    served += ask(slot, WRITE_ZEROES, 0, 16) == 0;
    tell("served", served);
    tell("flush", ask(slot, FLUSH, 0, 0));
    tell("read", ask(slot, READ, 0, 4096));
}

/* Kinds of request that no disk has, headers that are none, data where none belongs. */
static void nonsense(void)
{
    u32 served = 0;
    start(SCRATCH);
    for (u32 kind = 0; kind < 64; kind++)
        if (kind != READ && kind != WRITE_OUT && kind != FLUSH && kind != GET_ID)
            served += ask(SCRATCH, kind, 0, 512) == 0;
    for (u32 bit = 5; bit < 32; bit++)
        served += ask(SCRATCH, 1u << bit, 0, 512) == 0;
    tell("served", served);
    for (u32 length = 1; length < 16; length += 7) {
        header(READ, 0);
        segment(SCRATCH, HEADER, length, 0);
        tell("short", outcome(SCRATCH));
    }
    tell("none", ask(SCRATCH, READ, 0, 0));
    tell("none", ask(SCRATCH, WRITE_OUT, 0, 0));
    header(READ, 0);
    segment(SCRATCH, HEADER, 16, 0);
    segment(SCRATCH, DATA, 512, 0);
    segment(SCRATCH, DATA, 512, WRITE);
    tell("both", outcome(SCRATCH));
    /* More than 126 segments of 32 KiB. */
    header(READ, 0);
    segment(SCRATCH, HEADER, 16, 0);
    segment(SCRATCH, DATA, 0x400000, WRITE);
    tell("large", outcome(SCRATCH));
    for (u32 length = 1; length < 64; length += 31)
        tell("id", ask(SCRATCH, GET_ID, 0, length));
}

/* Discard and write-zeroes with every sum that could be wrong. */
static void clear(void)
{
    u32 served = 0;
    start(SCRATCH);
    u32 sectors = get(SCRATCH, CONFIG);
    const u64 at[] = {sectors, sectors - 1, 1ull << 54, 1ull << 55, ~0ull, ~0ull - 1, 0};
    const u32 counts[] = {2, 0x400000, 0x400001, 0x800000, 0xffffffff};
    for (u32 kind = DISCARD; kind <= WRITE_ZEROES; kind += 2) {
        for (u32 place = 0; place < 7; place++) {
            for (u32 count = 0; count < 5; count++) {
                if (at[place] == 0 && count == 0)
                    continue;
                AT(u32, DATA) = at[place];
                AT(u32, DATA + 4) = at[place] >> 32;
                AT(u32, DATA + 8) = counts[count];
                AT(u32, DATA + 12) = 0;
                served += ask(SCRATCH, kind, 0, 16) == 0;
            }
        }
        AT(u32, DATA) = 0;
        AT(u32, DATA + 4) = 0;
        AT(u32, DATA + 8) = 8;
        AT(u32, DATA + 12) = 0xfffffffe;
        served += ask(SCRATCH, kind, 0, 16) == 0;
        served += ask(SCRATCH, kind, 0, 32) == 0;
        served += ask(SCRATCH, kind, 0, 15) == 0;
    }
    tell("served", served);
}

/* A good write at the end of scratch, and one that would go over it. */
static void edge(void)
{
    start(SCRATCH);
    u32 sectors = get(SCRATCH, CONFIG);
    for (u32 at = 0; at < 4096; at++)
        AT(u8, DATA + at) = 0xa5;
    tell("inside", ask(SCRATCH, WRITE_OUT, sectors - 1, 512));
    tell("across", ask(SCRATCH, WRITE_OUT, sectors - 1, 1024));
    tell("after", ask(SCRATCH, WRITE_OUT, sectors, 512));
    tell("flush", ask(SCRATCH, FLUSH, 0, 0));
}

/* In sector 0, the header of a format that has another file behind it: a disk is its bytes and nothing else. */
static void dress(void)
{
    static const u8 format[] = "QFI\373\0\0\0\2\0\0\0\0\0\0\0\40\0\0\0\13\0\0\0\20\0\0\0\0/etc/passwd";
    start(SCRATCH);
    u32 sectors = get(SCRATCH, CONFIG);
    for (u32 at = 0; at < 512; at++)
        AT(u8, DATA + at) = at < sizeof format ? format[at] : 0;
    u32 sum = checksum(DATA, 512);
    tell("written", ask(SCRATCH, WRITE_OUT, 0, 512));
    set(SCRATCH, STATUS, 0);
    wipe(SCRATCH, 0);
    start(SCRATCH);
    tell("read", ask(SCRATCH, READ, 0, 512));
    tell("same", checksum(DATA, 512) == sum && get(SCRATCH, CONFIG) == sectors);
}

/* No place for the outcome. */
static void mute(void)
{
    start(SCRATCH);
    header(READ, 0);
    describe(SCRATCH, 0, 0, HEADER, 16, 0, 0);
    publish(SCRATCH, 0, 0);
    answered(SCRATCH, 0);
}

/* A disk's bytes over the ring that the request came by, and over the code that waits for it. */
static void over_rings(void)
{
    start(IMAGE);
    header(READ, 0);
    segment(IMAGE, HEADER, 16, 0);
    segment(IMAGE, ring(IMAGE, 0), 0x4000, WRITE);
    describe(IMAGE, 0, next_descriptor, OUTCOME, 1, WRITE, 0);
    publish(IMAGE, 0, 0);
    bell(IMAGE, 0);
    while (AT(u8, OUTCOME) == UNTOUCHED)
        pause();
    tell("outcome", AT(u8, OUTCOME));
    for (u32 round = 0; round < 100; round++)
        bell(IMAGE, 0);
}

const struct attack block_attacks[] = {
    {"split", split}, {"beyond", beyond}, {"read-only", read_only}, {"nonsense", nonsense}, {"clear", clear},
    {"edge", edge},   {"dress", dress}, {"mute", mute},     {"over-rings", over_rings}, {0, 0},
};
