//! The rings against a model of them: whatever is in the table, exactly the chains before the first wrong one come
//! back, in their order and with their lengths.

use std::collections::BTreeSet;

use casemate_devices::{Device, Fault, Rng};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::guest::{BUFFERS, Guest, HIGH, HIGH_END, INDIRECT, LOW_END, NEXT, WRITE};

const SIZE: u16 = 8;
/// What the entropy device gives at most.
const ANSWER_MAX: u64 = 4096;

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// Right more often than not, or no second chain would ever be reached.
fn descriptors() -> impl Strategy<Value = Vec<Descriptor>> {
    let address = prop_oneof![
        20 => BUFFERS..BUFFERS + 0x1000,
        1 => select(vec![0, LOW_END - 64, LOW_END - 1, HIGH, HIGH_END - 64]),
        1 => select(vec![LOW_END, HIGH - 1, HIGH_END, u64::MAX, u64::MAX - 63]),
    ];
    let len = prop_oneof![20 => 1..=64_u32, 3 => select(vec![4096, 5000, 65]), 1 => select(vec![0, u32::MAX])];
    let flags = prop_oneof![
        20 => select(vec![WRITE, WRITE, WRITE | NEXT]),
        1 => select(vec![0, NEXT, INDIRECT | WRITE, 0xfff8 | WRITE]),
    ];
    let next = prop_oneof![20 => 0..SIZE, 1 => select(vec![SIZE, u16::MAX])];
    let one = (address, len, flags, next).prop_map(|(address, len, flags, next)| Descriptor {
        address,
        len,
        flags,
        next,
    });
    vec(one, usize::from(SIZE))
}

fn in_memory(descriptor: &Descriptor) -> bool {
    let end = u128::from(descriptor.address) + u128::from(descriptor.len);
    let within = |from: u64, to: u64| descriptor.address >= from && end <= u128::from(to);
    within(0, LOW_END) && descriptor.address < LOW_END || within(HIGH, HIGH_END)
}

/// Bytes of the chain at `head`, or what is wrong with it.
fn chain(table: &[Descriptor], head: u16, seen: &mut BTreeSet<u16>) -> Result<u64, Fault> {
    let (mut index, mut bytes, mut readable) = (head, 0, false);
    loop {
        let Some(at) = table.get(usize::from(index)) else {
            return Err(Fault::DescriptorIndex(index));
        };
        if !seen.insert(index) {
            return Err(Fault::DescriptorSeenTwice(index));
        } else if at.flags & INDIRECT != 0 {
            return Err(Fault::Indirect(index));
        } else if at.len == 0 {
            return Err(Fault::EmptyDescriptor(index));
        } else if !in_memory(at) {
            return Err(Fault::BufferOutsideMemory(at.address));
        } else if at.flags & WRITE != 0 {
            bytes += u64::from(at.len);
        } else if bytes > 0 {
            return Err(Fault::ReadableAfterWritable(index));
        } else {
            readable = true;
        }
        if at.flags & NEXT == 0 {
            let fits = !readable && bytes > 0;
            return if fits { Ok(bytes) } else { Err(Fault::WrongDirection) };
        }
        index = at.next;
    }
}

proptest! {
    #[test]
    fn chains_come_back_as_a_model_says(
        table in descriptors(),
        heads in vec(prop_oneof![20 => 0..SIZE, 1 => Just(SIZE)], 0..=usize::from(SIZE)),
        ahead in prop_oneof![9 => Just(0_u16), 1 => 1..=SIZE, 1 => any::<u16>()],
    ) {
        let mut guest = Guest::running(Device::Rng(Rng::new()));
        for (index, at) in (0..).zip(&table) {
            guest.descriptor(0, index, (at.address, at.len, at.flags), at.next);
        }
        for head in &heads {
            guest.publish(0, *head);
        }
        let mut fault = None;
        let mut answers = vec![];
        let index = guest.available_index(0).wrapping_add(ahead);
        guest.set_available_index(0, index);
        if index > SIZE {
            fault = Some(Fault::AvailableJump(index));
        } else {
            // Entries that the driver never wrote are zeros, and so head 0.
            let mut seen = BTreeSet::new();
            let mut all = heads.clone();
            all.resize(usize::from(index), 0);
            for head in all {
                match chain(&table, head, &mut seen) {
                    Ok(bytes) => answers.push((u32::from(head), bytes.min(ANSWER_MAX) as u32)),
                    Err(found) => {
                        fault = Some(found);
                        break;
                    }
                }
            }
        }
        guest.transport.notify(0);
        prop_assert_eq!(guest.used(0), answers);
        prop_assert_eq!(guest.failed(), fault.is_some());
        prop_assert_eq!(guest.transport.fault(), fault);
    }
}
