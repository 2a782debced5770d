/* From the command line to one attack and its end. */
#include "guest.h"

u64 argument[4];
static u32 state = 0x2545f491;

void say(const char *text)
{
    while (*text)
        outb(0x3f8, *text++);
}

void tell(const char *name, u32 value)
{
    char digits[12] = " ";
    u32 at = 1;
    for (u32 shift = 32; shift > 0; shift -= 4)
        if (value >> (shift - 4) || shift == 4)
            digits[at++] = "0123456789abcdef"[(value >> (shift - 4)) & 15];
    digits[at++] = '\n';
    digits[at] = 0;
    say(name);
    say(digits);
}

/* xorshift32: the same at every run. */
u32 random(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* The bell of a queue that no device has says that the attack is over: who watches sees it in the counters. */
void finish(void)
{
    say("end\n");
    set(INIT, NOTIFY, 7);
}

static int same(const char *name, const char *word)
{
    while (*name && *name == *word)
        name++, word++;
    return *name == 0 && *word == ' ';
}

/* The words are followed by those that the VMM appends, which are no numbers. */
static void read_arguments(const char *at)
{
    for (u32 count = 0; count < 4 && *at == ' '; count++) {
        for (at++; (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f'); at++)
            argument[count] = argument[count] << 4 | (*at <= '9' ? *at - '0' : *at - 'a' + 10);
    }
}

static int find(const struct attack *attacks, const char *word)
{
    for (; attacks->name; attacks++) {
        if (!same(attacks->name, word))
            continue;
        const char *end = word;
        while (*end != ' ')
            end++;
        read_arguments(end);
        say("begin ");
        say(attacks->name);
        say("\n");
        attacks->run();
        finish();
        return 1;
    }
    return 0;
}

static int find_any(const char *word)
{
    return find(register_attacks, word) || find(ring_attacks, word) || find(block_attacks, word) ||
           find(console_attacks, word) || find(bus_attacks, word) || find(processor_attacks, word);
}

/* Words of an image whose command line is not the test's to choose: it writes them behind the mark. */
static const volatile char built_in[64] = "@attack: none ";

/* `info` is the start-info structure of the PVH ABI; its command line is at offset 24. */
void guest(const u32 *info)
{
    set_traps();
    if (!find_any((const char *)info[6]))
        find_any((const char *)built_in + 9);
}
