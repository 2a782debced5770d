/* What every attack has: the serial port to report with, the bus, traps, and a driver that means no good. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* Guest memory is 128 MiB; the first address after it. */
#define MEMORY_END 0x8000000u
/* Where buffers begin; rings are below. */
#define BUFFERS 0x400000u

/* One attack: the name that the command line asks for. */
struct attack {
    const char *name;
    void (*run)(void);
};
extern const struct attack register_attacks[], ring_attacks[], block_attacks[], console_attacks[], bus_attacks[],
    processor_attacks[];

/* Numbers after the attack's name on the command line, in hexadecimal. */
extern u64 argument[4];

/* machine.c */
void say(const char *text);
void tell(const char *name, u32 value);
void finish(void);
u32 random(void);

#define OUT(suffix, type)                                                                                             \
    static inline void out##suffix(u16 port, type value)                                                              \
    {                                                                                                                 \
        __asm__ volatile("out" #suffix " %0, %1" ::"a"(value), "d"(port));                                            \
    }                                                                                                                 \
    static inline type in##suffix(u16 port)                                                                           \
    {                                                                                                                 \
        type value;                                                                                                   \
        __asm__ volatile("in" #suffix " %1, %0" : "=a"(value) : "d"(port));                                           \
        return value;                                                                                                 \
    }
OUT(b, u8)
OUT(w, u16)
OUT(l, u32)

#define AT(type, address) (*(volatile type *)(address))
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }

/* traps.c: exceptions are fatal to the guest unless one is expected, interrupts are counted. */
void set_traps(void);
extern volatile u32 interrupts;
/* Nonzero: the next exception skips so many bytes of code and is counted in `faults`. */
extern volatile u32 skip, faults;

/* smp.c */
#define LOCAL_APIC 0xfee00000u
void enable_apic(void);
void command(u32 destination, u32 value);
void start_other(void (*run)(void));

/* virtio.c */
enum { INIT, IMAGE, SCRATCH, CONSOLE, RNG, SLOTS };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { ACKNOWLEDGE = 1, DRIVER = 3, FEATURES_OK = 11, DRIVER_OK = 15, NEEDS_RESET = 64 };
enum { FEATURES = 0x10, FEATURES_SELECT = 0x14, TAKEN = 0x20, TAKEN_SELECT = 0x24, QUEUE_SELECT = 0x30,
       QUEUE_SIZE_MAX = 0x34, QUEUE_SIZE = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, STATUS = 0x70,
       DESCRIPTORS = 0x80, AVAILABLE = 0x90, USED = 0xa0, CONFIG = 0x100 };

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

static inline u32 window(u32 slot) { return 0xd0000000u + slot * 0x1000u; }
static inline void set(u32 slot, u32 reg, u32 value) { AT(u32, window(slot) + reg) = value; }
static inline u32 get(u32 slot, u32 reg) { return AT(u32, window(slot) + reg); }
static inline u32 ring(u32 slot, u32 queue) { return 0x200000u + slot * 0x20000u + queue * 0x4000u; }
static inline u32 available(u32 slot, u32 queue) { return ring(slot, queue) + 0x1000; }
static inline u32 used(u32 slot, u32 queue) { return ring(slot, queue) + 0x2000; }
static inline u32 used_index(u32 slot, u32 queue) { return AT(u16, used(slot, queue) + 2); }

u64 features(u32 slot);
void take_features(u32 slot, u64 taken);
void negotiate(u32 slot);
void configure(u32 slot, u32 queue, u32 size, u64 descriptors, u64 available, u64 used);
void start(u32 slot);
void wipe(u32 slot, u32 queue);
void describe(u32 slot, u32 queue, u32 index, u64 address, u32 length, u32 flags, u32 next);
void publish(u32 slot, u32 queue, u32 head);
void bell(u32 slot, u32 queue);
void await(u32 slot, u32 queue, u32 index);
u32 answered(u32 slot, u32 queue);
