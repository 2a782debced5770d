/* The control pipe: what is no frame, no control message, or out of its turn. */
#include "guest.h"

enum { CONTROL_IN = 2, CONTROL_OUT = 3, PORT_IN = 4, PORT_OUT = 5 };
enum { HELLO = 64, UNIQUE_DONE = 65, STARTED = 66, STDOUT = 67, CREDIT = 71 };

static void send(u32 queue, u32 length)
{
    describe(CONSOLE, queue, 0, BUFFERS, length, 0, 0);
    publish(CONSOLE, queue, 0);
    answered(CONSOLE, queue);
}

static void put_frame(u32 at, u32 kind, u32 length)
{
    AT(u32, at) = kind;
    AT(u32, at + 4) = length;
}

/* A header of the command line's choice, and so many bytes of 0xaa after it. */
static void frame(void)
{
    start(CONSOLE);
    AT(u64, BUFFERS) = argument[0];
    for (u32 at = 0; at < argument[1]; at++)
        AT(u8, BUFFERS + 8 + at) = 0xaa;
    send(PORT_OUT, 8 + argument[1]);
}

static void say_hello(u32 more)
{
    put_frame(BUFFERS, HELLO, 8);
    AT(u32, BUFFERS + 8) = 1;
    AT(u32, BUFFERS + 12) = 0;
    send(PORT_OUT, 16 + more);
}

/* All that a start has. Nothing of the host's is ever read. */
static void run_up(void)
{
    start(CONSOLE);
    say_hello(0);
    put_frame(BUFFERS, UNIQUE_DONE, 0);
    send(PORT_OUT, 8);
    put_frame(BUFFERS, STARTED, 4);
    AT(u32, BUFFERS + 8) = 1;
    send(PORT_OUT, 12);
    say("running\n");
}

/* Output beyond what was granted. */
static void unread(void)
{
    run_up();
    put_frame(BUFFERS, STDOUT, 4096);
    send(PORT_OUT, 8 + 4096);
    put_frame(BUFFERS, STDOUT, 65536);
    send(PORT_OUT, 65536);
    send(PORT_OUT, 8);
}

/* Leave to send more input than 32 bits count, in `argument[0]` steps. */
static void overdraw(void)
{
    run_up();
    for (u32 step = 0; step < argument[0]; step++) {
        put_frame(BUFFERS, CREDIT, 4);
        AT(u32, BUFFERS + 8) = 0xffffffffu / (u32)argument[0] + 1;
        send(PORT_OUT, 12);
    }
    say("granted\n");
}

/* HELLO and what may only come after its answer, in one chain. */
static void hasty(void)
{
    start(CONSOLE);
    put_frame(BUFFERS + 16, UNIQUE_DONE, 0);
    say_hello(8);
}

/* Control messages of random bytes and of every length up to 40. */
static void control(void)
{
    start(CONSOLE);
    for (u32 round = 0; round < 400; round++) {
        for (u32 at = 0; at < 40; at += 4)
            AT(u32, BUFFERS + at) = round & 1 ? random() : random() & 7;
        send(CONTROL_OUT, 1 + round % 40);
    }
    tell("sent", used_index(CONSOLE, CONTROL_OUT));
    tell("status", get(CONSOLE, STATUS));
}

/* A place of one byte for what the device has to say. */
static void small(void)
{
    start(CONSOLE);
    describe(CONSOLE, CONTROL_IN, 0, BUFFERS + 64, 1, WRITE, 0);
    publish(CONSOLE, CONTROL_IN, 0);
    AT(u32, BUFFERS) = 0xffffffff;
    AT(u32, BUFFERS + 4) = 1 << 16;
    send(CONTROL_OUT, 8);
}

/* One chain of more than 64 KiB. */
static void large(void)
{
    start(CONSOLE);
    send(PORT_OUT, 65537);
}

/* Chains of the wrong direction, on the queue of the command line's choice. */
static void direction(void)
{
    start(CONSOLE);
    describe(CONSOLE, argument[0], 0, BUFFERS, 8, WRITE, 0);
    publish(CONSOLE, argument[0], 0);
    answered(CONSOLE, argument[0]);
}

const struct attack console_attacks[] = {
    {"frame", frame}, {"unread", unread}, {"overdraw", overdraw}, {"hasty", hasty},         {"control", control},
    {"small", small}, {"large", large},   {"direction", direction}, {0, 0},
};
