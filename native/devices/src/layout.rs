//! Where the devices are: addresses, interrupts and the words that tell the guest's kernel.
//!
//! Linux learns of them from `virtio_mmio.device=` on its command line
//! (Documentation/admin-guide/kernel-parameters.txt), so the order of slots is the order of names:
//! the first block device is vda.

/// Guest memory below the devices ends here at the latest; what does not fit goes on at
/// [`HIGH_MEMORY_BASE`]. Between the two are the devices and the interrupt controllers.
pub const LOW_MEMORY_END: u64 = 0xc000_0000;
/// Guest-physical address of the memory that does not fit below the devices.
pub const HIGH_MEMORY_BASE: u64 = 1 << 32;
/// Guest-physical address of slot 0, between low and high memory.
pub const MMIO_BASE: u64 = 0xd000_0000;
/// Size of one slot's window.
pub const MMIO_WINDOW_BYTES: u64 = 0x1000;
/// Interrupt line (GSI) of slot 0; each slot has the next. Edge triggered, not shared.
pub const IRQ_BASE: u32 = 5;
/// Slots in use.
pub const SLOT_COUNT: u32 = 11;

/// The init disk, vda.
pub const SLOT_INIT: u32 = 0;
/// The tenant's image, vdb.
pub const SLOT_IMAGE: u32 = 1;
/// The scratch disk, vdc.
pub const SLOT_SCRATCH: u32 = 2;
/// The control pipe.
pub const SLOT_CONSOLE: u32 = 3;
/// The entropy source.
pub const SLOT_RNG: u32 = 4;
/// The network card, eth0.
pub const SLOT_NET: u32 = 5;
/// The way back for memory that the guest does not use.
pub const SLOT_BALLOON: u32 = 6;
/// The first of the disks for volumes, vdd.
pub const SLOT_VOLUME: u32 = 7;
/// Disks for volumes: in every machine, because a template has the devices of all that are restored from it. Those of no
/// volume have no capacity.
pub const VOLUME_SLOTS: usize = 4;

/// Offset of the `QueueNotify` register in a window: a 4-byte write of the queue's number. The
/// monitor binds an ioeventfd with data match to it for each queue.
pub const QUEUE_NOTIFY_OFFSET: u64 = 0x50;

/// First guest-physical address of a slot's window.
#[must_use]
pub fn window(slot: u32) -> u64 {
    MMIO_BASE.saturating_add(u64::from(slot).saturating_mul(MMIO_WINDOW_BYTES))
}

/// The slot and the offset in its window of a guest-physical address, when a slot is there.
#[must_use]
pub fn window_of(address: u64) -> Option<(u32, u64)> {
    let offset = address.checked_sub(MMIO_BASE)?;
    let slot = u32::try_from(offset.checked_div(MMIO_WINDOW_BYTES)?).ok()?;
    let within = offset.checked_rem(MMIO_WINDOW_BYTES)?;
    (slot < SLOT_COUNT).then_some((slot, within))
}

/// Interrupt line (GSI) of a slot.
#[must_use]
pub fn irq(slot: u32) -> u32 {
    IRQ_BASE.saturating_add(slot)
}

/// The kernel command line's word for a slot, such as `virtio_mmio.device=4K@0xd0000000:5`.
#[must_use]
pub fn cmdline_entry(slot: u32) -> String {
    format!("virtio_mmio.device=4K@{:#x}:{}", window(slot), irq(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_where_the_command_line_says() {
        assert_eq!(cmdline_entry(SLOT_INIT), "virtio_mmio.device=4K@0xd0000000:5");
        assert_eq!(cmdline_entry(SLOT_RNG), "virtio_mmio.device=4K@0xd0004000:9");
        assert_eq!(cmdline_entry(SLOT_NET), "virtio_mmio.device=4K@0xd0005000:10");
        assert_eq!(cmdline_entry(SLOT_BALLOON), "virtio_mmio.device=4K@0xd0006000:11");
        assert_eq!(cmdline_entry(SLOT_VOLUME), "virtio_mmio.device=4K@0xd0007000:12");
    }

    #[test]
    fn an_address_belongs_to_one_slot_or_to_none() {
        assert_eq!(window_of(MMIO_BASE), Some((0, 0)));
        assert_eq!(window_of(0xd000_1fff), Some((1, 0xfff)));
        assert_eq!(window_of(0xd000_4fff), Some((4, 0xfff)));
        assert_eq!(window_of(0xd000_6fff), Some((6, 0xfff)));
        assert_eq!(window_of(0xd000_afff), Some((10, 0xfff)));
        assert_eq!(window_of(0xd000_b000), None);
        assert_eq!(window_of(MMIO_BASE.saturating_sub(1)), None);
        assert_eq!(window_of(u64::MAX), None);
    }
}
