/* A driver for all devices of the board, without any of the care that a driver takes. */
#include "guest.h"

u64 features(u32 slot)
{
    set(slot, FEATURES_SELECT, 1);
    u64 high = get(slot, FEATURES);
    set(slot, FEATURES_SELECT, 0);
    return high << 32 | get(slot, FEATURES);
}

void take_features(u32 slot, u64 taken)
{
    set(slot, TAKEN_SELECT, 1);
    set(slot, TAKEN, taken >> 32);
    set(slot, TAKEN_SELECT, 0);
    set(slot, TAKEN, taken);
}

void negotiate(u32 slot)
{
    set(slot, STATUS, 0);
    set(slot, STATUS, ACKNOWLEDGE);
    set(slot, STATUS, DRIVER);
    take_features(slot, features(slot));
    set(slot, STATUS, FEATURES_OK);
}

void configure(u32 slot, u32 queue, u32 size, u64 descriptors, u64 available, u64 used)
{
    set(slot, QUEUE_SELECT, queue);
    set(slot, QUEUE_SIZE, size);
    set(slot, DESCRIPTORS, descriptors);
    set(slot, DESCRIPTORS + 4, descriptors >> 32);
    set(slot, AVAILABLE, available);
    set(slot, AVAILABLE + 4, available >> 32);
    set(slot, USED, used);
    set(slot, USED + 4, used >> 32);
    set(slot, QUEUE_READY, 1);
}

static u32 size_of(u32 slot, u32 queue)
{
    set(slot, QUEUE_SELECT, queue);
    return get(slot, QUEUE_SIZE_MAX);
}

void start(u32 slot)
{
    negotiate(slot);
    for (u32 queue = 0; queue < 6; queue++) {
        u32 size = size_of(slot, queue);
        if (size)
            configure(slot, queue, size, ring(slot, queue), available(slot, queue), used(slot, queue));
    }
    set(slot, STATUS, DRIVER_OK);
}

/* Rings as a driver that begins anew has them. */
void wipe(u32 slot, u32 queue)
{
    AT(u32, available(slot, queue)) = 0;
    AT(u32, used(slot, queue)) = 0;
}

void describe(u32 slot, u32 queue, u32 index, u64 address, u32 length, u32 flags, u32 next)
{
    volatile struct descriptor *at = (void *)(ring(slot, queue) + index * sizeof(struct descriptor));
    at->address = address;
    at->length = length;
    at->flags = flags;
    at->next = next;
}

void publish(u32 slot, u32 queue, u32 head)
{
    static u8 masks[SLOTS][6];
    if (masks[slot][queue] == 0)
        masks[slot][queue] = size_of(slot, queue) - 1;
    u32 index = AT(u16, available(slot, queue) + 2);
    AT(u16, available(slot, queue) + 4 + (index & masks[slot][queue]) * 2) = head;
    AT(u16, available(slot, queue) + 2) = index + 1;
}

void bell(u32 slot, u32 queue) { set(slot, NOTIFY, queue); }

/* Waits until the device gave back so many chains since it started; for ever when it does not. */
void await(u32 slot, u32 queue, u32 index)
{
    while (used_index(slot, queue) != (index & 0xffff))
        pause();
}

/* Rings, waits for everything that is available, and gives the length that came with the last chain. */
u32 answered(u32 slot, u32 queue)
{
    u32 index = AT(u16, available(slot, queue) + 2);
    bell(slot, queue);
    await(slot, queue, index);
    set(slot, QUEUE_SELECT, queue);
    u32 mask = get(slot, QUEUE_SIZE_MAX) - 1;
    return AT(u32, used(slot, queue) + 4 + ((index - 1) & mask) * 8 + 4);
}
