/* The interrupt table. */
#include "guest.h"

struct frame {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error, eip, cs, eflags;
};
extern u8 traps[256][16];

volatile u32 interrupts, skip, faults;
static struct {
    u16 low, selector, type, high;
} table[256];

/*
 * The way back is a popf and a ret, for which the flags lie in the place of the code segment and the address in
 * theirs: a software KVM does not know iret in this mode.
 */
void trap(struct frame *frame)
{
    u32 back = frame->eip;
    if (frame->vector == 2 || frame->vector >= 32) {
        interrupts++;
    } else if (skip) {
        faults++;
        back += skip;
    } else {
        tell("trap", frame->vector);
        tell("at", frame->eip);
        outb(0x64, 0xfe);
    }
    frame->cs = frame->eflags;
    frame->eflags = back;
}

void set_traps(void)
{
    for (u32 vector = 0; vector < 256; vector++) {
        u32 entry = (u32)traps[vector];
        table[vector].low = entry;
        table[vector].selector = 0x10;
        table[vector].type = 0x8e00;
        table[vector].high = entry >> 16;
    }
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) where = {sizeof table - 1, (u32)table};
    __asm__ volatile("lidt %0" ::"m"(where));
}
