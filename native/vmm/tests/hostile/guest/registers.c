/* Registers of the virtio window: out of turn, out of range, in the wrong width. */
#include "guest.h"

static const u8 steps[] = {0, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK};

static void step_to(u32 slot, u32 count)
{
    set(slot, STATUS, 0);
    for (u32 at = 1; at <= count; at++) {
        if (steps[at] == FEATURES_OK)
            take_features(slot, features(slot));
        set(slot, STATUS, steps[at]);
    }
}

/* Every status after every step: what is neither the next step, nor the same, nor FAILED, is not taken. */
static void status(void)
{
    u32 illegal = 0, taken = 0;
    for (u32 at = 0; at < 5; at++) {
        for (u32 value = 1; value < 256; value++) {
            step_to(RNG, at);
            set(RNG, STATUS, value);
            u32 asked = value & ~NEEDS_RESET, now = get(RNG, STATUS);
            if (now == steps[at])
                continue;
            taken++;
            illegal += now != asked || (asked != (steps[at] | 128u) && (at == 4 || asked != steps[at + 1]));
        }
        step_to(RNG, at);
        set(RNG, STATUS, 0xffffff00u | steps[at]);
        illegal += get(RNG, STATUS) != steps[at];
    }
    tell("taken", taken);
    tell("illegal", illegal);
}

/* Every bit that is not offered, alone beside VERSION_1, and VERSION_1 left out. */
static void feature_bits(void)
{
    u32 accepted = 0, refused = 0;
    for (u32 slot = 0; slot < SLOTS; slot++) {
        u64 offered = features(slot);
        for (u32 bit = 0; bit <= 64; bit++) {
            u64 taken = bit == 64 ? offered & 0xffffffff : 1ull << 32 | 1ull << bit;
            if (bit < 64 && (offered >> bit & 1))
                continue;
            step_to(slot, 2);
            take_features(slot, taken);
            set(slot, STATUS, FEATURES_OK);
            if (get(slot, STATUS) == FEATURES_OK)
                accepted++;
            else
                refused++;
        }
        set(slot, STATUS, 0);
    }
    tell("accepted", accepted);
    tell("refused", refused);
}

static const u32 values[] = {0, 1, 2, 3, 16, 256, 0xffff, 0x10000, MEMORY_END, 0xd0000000, 0xffffffff};

/* Everything but reset, for every queue there is and more: then a request is answered where it was. */
static void change_all(void)
{
    for (u32 queue = 0; queue < 9; queue++) {
        for (u32 reg = 0; reg < CONFIG; reg += 4) {
            for (u32 at = 0; at < sizeof values / sizeof *values; at++) {
                set(RNG, QUEUE_SELECT, queue == 8 ? 0xffffffff : queue);
                if (reg == NOTIFY || (reg == STATUS && (values[at] == 0 || values[at] & 128)))
                    continue;
                set(RNG, reg, values[at]);
            }
        }
    }
    set(RNG, QUEUE_SELECT, 0);
    tell("size", get(RNG, QUEUE_SIZE_MAX));
    tell("ready", get(RNG, QUEUE_READY));
    tell("status", get(RNG, STATUS));
    describe(RNG, 0, 0, BUFFERS, 64, WRITE, 0);
    publish(RNG, 0, 0);
    tell("answer", answered(RNG, 0));
}

static void frozen(void)
{
    start(RNG);
    change_all();
}

/* Devices are started, a template is taken at HELLO, and in the restored machine they are attacked. */
static void restored(void)
{
    start(RNG);
    start(SCRATCH);
    start(CONSOLE);
    AT(u32, BUFFERS) = 64;
    AT(u32, BUFFERS + 4) = 8;
    AT(u32, BUFFERS + 8) = 1;
    AT(u32, BUFFERS + 12) = 0;
    describe(CONSOLE, 5, 0, BUFFERS, 16, 0, 0);
    publish(CONSOLE, 5, 0);
    bell(CONSOLE, 5);
    /* Only a restored machine has a scratch disk of any size. */
    while (get(SCRATCH, CONFIG) == 0)
        pause();
    say("begin restored\n");
    tell("capacity", get(SCRATCH, CONFIG));
    change_all();
    AT(u32, BUFFERS) = 1;
    AT(u32, BUFFERS + 4) = 0;
    AT(u64, BUFFERS + 8) = get(SCRATCH, CONFIG);
    describe(SCRATCH, 0, 0, BUFFERS, 16 + 512, NEXT, 1);
    describe(SCRATCH, 0, 1, BUFFERS + 0x1000, 1, WRITE, 0);
    publish(SCRATCH, 0, 0);
    answered(SCRATCH, 0);
    tell("scratch", AT(u8, BUFFERS + 0x1000));
}

/* CVE-2026-5747: a longer ring, or another one, after the rings were checked. */
static void resize(void)
{
    start(RNG);
    configure(RNG, 0, argument[0], argument[1], argument[2], argument[3]);
    tell("ready", get(RNG, QUEUE_READY));
    for (u32 at = 0; at < 8; at++) {
        describe(RNG, 0, at, BUFFERS + at * 64, 64, WRITE, 0);
        publish(RNG, 0, at);
    }
    answered(RNG, 0);
    tell("used", used_index(RNG, 0));
    tell("elsewhere", AT(u32, (u32)argument[3]));
}

/* Registers of 4 bytes in 1, 2 and 8; between registers; all of them that can only be read. */
static void widths(void)
{
    u32 leaked = 0;
    start(RNG);
    for (u32 offset = 0; offset < CONFIG; offset++) {
        leaked |= AT(u8, window(RNG) + offset) | AT(u16, window(RNG) + offset);
        AT(u8, window(RNG) + offset) = 0;
        AT(u16, window(RNG) + offset) = 0;
        if (offset % 4)
            leaked |= AT(u32, window(RNG) + offset), AT(u32, window(RNG) + offset) = 0;
    }
    tell("read", leaked);
    tell("status", get(RNG, STATUS));
}

/* Every byte of every configuration, before and after writes of every width. */
static void config(void)
{
    u32 changed = 0, sum = 0;
    for (u32 slot = 0; slot < SLOTS; slot++) {
        for (u32 offset = 0; offset < 0x80; offset++) {
            u32 at = window(slot) + CONFIG + offset, before = AT(u8, at);
            AT(u8, at) = ~before;
            AT(u16, at) = 0xffff;
            AT(u32, at) = 0xffffffff;
            changed += AT(u8, at) != before;
            sum += before;
        }
    }
    tell("changed", changed);
    tell("sum", sum);
}

const struct attack register_attacks[] = {
    {"status", status}, {"features", feature_bits}, {"frozen", frozen}, {"resize", resize}, {"restored", restored},
    {"widths", widths}, {"config", config},         {0, 0},
};
