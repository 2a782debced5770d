/* Messages between processors, and the start of the second one. */
#include "guest.h"

enum { SPURIOUS = 0xf0, COMMAND = 0x300, DESTINATION = 0x310 };

/* What entry.S has for a processor that begins in real mode; it goes on in `other`. */
extern u8 trampoline[], trampoline_end[];

static void (*volatile task)(void);

void enable_apic(void) { AT(u32, LOCAL_APIC + SPURIOUS) = 0x1ff; }

void command(u32 destination, u32 value)
{
    AT(u32, LOCAL_APIC + DESTINATION) = destination << 24;
    AT(u32, LOCAL_APIC + COMMAND) = value;
}

void other(void)
{
    task();
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* INIT, and STARTUP at 0x8000, where the trampoline is copied to. */
void start_other(void (*run)(void))
{
    for (u32 at = 0; at < (u32)(trampoline_end - trampoline); at++)
        AT(u8, 0x8000 + at) = trampoline[at];
    task = run;
    enable_apic();
    command(1, 0x4500);
    command(1, 0x4608);
}
