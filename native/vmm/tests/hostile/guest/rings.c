/* Rings and chains. */
#include "guest.h"

/* One request of the entropy device, to be bent. */
static void request(u64 address, u32 length, u32 flags, u32 next)
{
    describe(RNG, 0, 0, address, length, flags, next);
    publish(RNG, 0, 0);
}

/* Rings of a size and at addresses of the command line's choice, with one good request in them. */
static void ring_set_up(void)
{
    negotiate(RNG);
    describe(RNG, 0, 0, BUFFERS, 64, WRITE, 0);
    AT(u16, available(RNG, 0) + 2) = 1;
    configure(RNG, 0, argument[0], argument[1] ? argument[1] : ring(RNG, 0),
              argument[2] ? argument[2] : available(RNG, 0), argument[3] ? argument[3] : used(RNG, 0));
    set(RNG, STATUS, DRIVER_OK);
    tell("status", get(RNG, STATUS));
    /* A device that refuses its rings is seen without a bell. */
    while (get(RNG, STATUS) & NEEDS_RESET)
        pause();
    bell(RNG, 0);
    await(RNG, 0, 1);
}

/* All three rings at one place: descriptor 0 is where the indices are. */
static void overlap(void)
{
    negotiate(RNG);
    configure(RNG, 0, 8, BUFFERS, BUFFERS, BUFFERS);
    set(RNG, STATUS, DRIVER_OK);
    tell("status", get(RNG, STATUS));
    for (u32 round = 0; round < 200; round++) {
        AT(u16, BUFFERS + 2) += 1;
        bell(RNG, 0);
    }
}

/* A buffer at `argument[0]`, of `argument[1]` bytes. */
static void buffer(void)
{
    start(RNG);
    request(argument[0], argument[1], argument[2] ? (u32)argument[2] : (u32)WRITE, argument[3]);
    answered(RNG, 0);
}

/* As many descriptors as the longest ring has, each of all memory: more than 32 bits count. */
static void endless(void)
{
    start(SCRATCH);
    for (u32 at = 0; at < 128; at++)
        describe(SCRATCH, 0, at, 0, MEMORY_END, at == 127 ? WRITE : WRITE | NEXT, at + 1);
    publish(SCRATCH, 0, 0);
    answered(SCRATCH, 0);
}

/* 1 GiB of entropy, eight times the whole memory, which must cost the host one page. */
static void greedy(void)
{
    start(RNG);
    for (u32 at = 0; at < 8; at++)
        describe(RNG, 0, at, BUFFERS, MEMORY_END - BUFFERS, at == 7 ? WRITE : WRITE | NEXT, at + 1);
    publish(RNG, 0, 0);
    tell("given", answered(RNG, 0));
    u32 beyond = 0;
    for (u32 at = 0x1000; at < 0x100000; at += 4)
        beyond |= AT(u32, BUFFERS + at);
    tell("beyond", beyond);
}

static void loop(void)
{
    start(RNG);
    u32 length = argument[0];
    for (u32 at = 0; at < length; at++)
        describe(RNG, 0, at, BUFFERS, 8, WRITE | NEXT, (at + 1) % length);
    publish(RNG, 0, 0);
    answered(RNG, 0);
}

/* CVE-2026-45782: one head twice, or two heads with one tail. */
static void twice(void)
{
    start(RNG);
    describe(RNG, 0, 0, BUFFERS, 8, argument[0] ? WRITE | NEXT : WRITE, 2);
    describe(RNG, 0, 1, BUFFERS, 8, WRITE | NEXT, 2);
    describe(RNG, 0, 2, BUFFERS, 8, WRITE, 0);
    publish(RNG, 0, 0);
    publish(RNG, 0, argument[0]);
    answered(RNG, 0);
}

static void jump(void)
{
    start(RNG);
    request(BUFFERS, 8, WRITE, 0);
    AT(u16, available(RNG, 0) + 2) = argument[0];
    bell(RNG, 0);
    await(RNG, 0, argument[0]);
}

static void head(void)
{
    start(RNG);
    publish(RNG, 0, argument[0]);
    answered(RNG, 0);
}

/* Entropy into the rings it came by: `argument[0]` says into which. Whatever the device then meets is random. */
static void own_rings(void)
{
    start(RNG);
    for (u32 round = 0; round < 64; round++) {
        for (u32 at = 0; at < 8; at++)
            describe(RNG, 0, at, ring(RNG, 0) + argument[0], 256, WRITE, 0);
        u32 index = used_index(RNG, 0);
        AT(u16, available(RNG, 0) + 4 + (index & 7) * 2) = round & 7;
        AT(u16, available(RNG, 0) + 2) = index + 1;
        bell(RNG, 0);
        for (u32 wait = 0; wait < 2000; wait++)
            pause();
        if (round == 0)
            say("rang\n");
    }
}

/* Every bell of every queue that there is and is not; devices are reset and started again meanwhile. */
static void storm(void)
{
    for (u32 slot = IMAGE; slot < SLOTS; slot++)
        start(slot);
    for (u32 round = 0; round < argument[0]; round++) {
        u32 slot = IMAGE + round % (SLOTS - 1), queue = round / SLOTS % 9;
        bell(slot, queue == 8 ? random() : queue);
        if (round % 1000 == 999)
            set(slot, STATUS, 0), start(slot);
    }
    for (u32 slot = IMAGE; slot < SLOTS; slot++)
        tell("status", get(slot, STATUS));
}

/* One request of each of 8 chains: entropy, or a read of 4 MiB. */
static void fill(u32 slot)
{
    AT(u32, BUFFERS) = AT(u32, BUFFERS + 8) = AT(u32, BUFFERS + 12) = 0;
    for (u32 at = 0; at < 8; at++) {
        if (slot == RNG) {
            describe(RNG, 0, at, BUFFERS, 64, WRITE, 0);
        } else {
            describe(slot, 0, at * 3, BUFFERS, 16, NEXT, at * 3 + 1);
            describe(slot, 0, at * 3 + 1, BUFFERS + 0x1000, 0x3f0000, WRITE | NEXT, at * 3 + 2);
            describe(slot, 0, at * 3 + 2, BUFFERS + 16, 1, WRITE, 0);
        }
        publish(slot, 0, slot == RNG ? at : at * 3);
    }
}

/* Devices that are reset with requests under way: what was asked before is not answered afterwards. */
static void resets(void)
{
    u32 late = 0;
    for (u32 round = 0; round < argument[0]; round++) {
        u32 slot = round & 1 ? SCRATCH : RNG;
        wipe(slot, 0);
        start(slot);
        fill(slot);
        bell(slot, 0);
        set(slot, STATUS, 0);
        u32 seen = used_index(slot, 0);
        for (u32 wait = 0; wait < 500; wait++)
            pause();
        late += used_index(slot, 0) != seen;
    }
    tell("late", late);
    wipe(RNG, 0);
    start(RNG);
    request(BUFFERS, 64, WRITE, 0);
    tell("answer", answered(RNG, 0));
}

static void ring_for_ever(void)
{
    for (;;) {
        AT(u16, available(SCRATCH, 0) + 2) = used_index(SCRATCH, 0) + 32;
        bell(SCRATCH, 0);
    }
}

/*
 * One bell without end, rung by two processors, and at each ring up to 32 reads of 4 MiB: whoever waits for a quiet
 * moment before he looks at the clock waits for ever.
 */
static void ring_on(void)
{
    start(SCRATCH);
    for (u32 at = 0; at < 32; at++) {
        describe(SCRATCH, 0, at * 3, BUFFERS, 16, NEXT, at * 3 + 1);
        describe(SCRATCH, 0, at * 3 + 1, BUFFERS + 0x1000, 0x3f0000, WRITE | NEXT, at * 3 + 2);
        describe(SCRATCH, 0, at * 3 + 2, BUFFERS + 16, 1, WRITE, 0);
    }
    for (u32 at = 0; at < 128; at++)
        AT(u16, available(SCRATCH, 0) + 4 + at * 2) = at % 32 * 3;
    say("now\n");
    start_other(ring_for_ever);
    ring_for_ever();
}

const struct attack ring_attacks[] = {
    {"ring", ring_set_up}, {"overlap", overlap}, {"buffer", buffer}, {"endless", endless},
    {"greedy", greedy},    {"loop", loop},       {"twice", twice},   {"jump", jump},
    {"head", head},        {"own-rings", own_rings}, {"storm", storm},   {"resets", resets},   {"ring-on", ring_on}, {0, 0},
};
