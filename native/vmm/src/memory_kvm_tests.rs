//! Memory as a guest reaches it: a program of a few instructions in 64-bit mode writes and reads on both sides of the
//! hole, at the last bytes there are, and in the hole itself.

use kvm_bindings::{kvm_dtable, kvm_segment};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{memory, memory_unsafe};

const GIB: u64 = 1 << 30;
/// The bytes that a page table, a directory or a table of directories has.
const TABLE: u64 = 0x1000;
const ROOT: u64 = 0x1000;
const DIRECTORIES: u64 = 0x3000;
const CODE: u64 = 0x8_0000;
const PRESENT_AND_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

/// Every address up to 20 GiB is itself, in pages of 2 MiB.
fn map_all(memory: &GuestMemoryMmap) {
    let put = |address, value: u64| memory.write_obj(value, GuestAddress(address)).unwrap();
    put(ROOT, (ROOT + TABLE) | PRESENT_AND_WRITABLE);
    for gib in 0..20 {
        let directory = DIRECTORIES + gib * TABLE;
        put(ROOT + TABLE + gib * 8, directory | PRESENT_AND_WRITABLE);
        for entry in 0..512 {
            put(directory + entry * 8, (gib * GIB + (entry << 21)) | LARGE | PRESENT_AND_WRITABLE);
        }
    }
}

/// For each address: mov rax,address; mov rbx,address; mov [rax],rbx; mov rcx,[rax]. Then hlt.
fn program(addresses: &[u64]) -> Vec<u8> {
    let each = addresses.iter().flat_map(|address| {
        let address = address.to_le_bytes();
        [
            &[0x48, 0xb8],
            &address[..],
            &[0x48, 0xbb],
            &address,
            &[0x48, 0x89, 0x18, 0x48, 0x8b, 0x08],
        ]
        .concat()
    });
    each.chain([0xf4]).collect()
}

/// Puts the processor into 64-bit mode at the program.
fn start(vcpu: &VcpuFd) {
    let mut special = vcpu.get_sregs().unwrap();
    let code =
        kvm_segment { type_: 11, present: 1, s: 1, l: 1, g: 1, selector: 8, ..Default::default() };
    let data = kvm_segment { type_: 3, l: 0, db: 1, selector: 16, limit: u32::MAX, ..code };
    special.cs = code;
    (special.ds, special.es, special.ss) = (data, data, data);
    special.gdt = kvm_dtable::default();
    special.cr3 = ROOT;
    special.cr4 = 1 << 5;
    special.efer = 1 << 8 | 1 << 10;
    special.cr0 = 1 << 31 | 1;
    vcpu.set_sregs(&special).unwrap();
    let mut general = vcpu.get_regs().unwrap();
    (general.rip, general.rflags) = (CODE, 2);
    vcpu.set_regs(&general).unwrap();
}

/// What a guest of `mib` MiB wrote at `addresses` and no memory took.
fn strays(kvm: &Kvm, mib: u32, addresses: &[u64]) -> (GuestMemoryMmap, Vec<u64>) {
    let memory = memory::allocate(mib).unwrap();
    map_all(&memory);
    memory.write_slice(&program(addresses), GuestAddress(CODE)).unwrap();
    let vm = kvm.create_vm().unwrap();
    memory_unsafe::register(&vm, &memory).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    start(&vcpu);
    let mut strays = Vec::new();
    loop {
        match vcpu.run().unwrap() {
            VcpuExit::Hlt => return (memory, strays),
            VcpuExit::MmioWrite(address, _) => strays.push(address),
            VcpuExit::MmioRead(_, data) => data.fill(0xff),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_guest_has_what_it_was_given_on_both_sides_of_the_hole_and_nothing_in_it() {
    let Ok(kvm) = Kvm::new() else {
        eprintln!("skipped: /dev/kvm cannot be opened");
        return;
    };
    for (mib, end) in [(3_072, 3 * GIB), (3_074, 4 * GIB + (2 << 20)), (16_384, 17 * GIB)] {
        let inside = [2 * GIB, 3 * GIB - 8, 4 * GIB, end - 8];
        let outside = [3 * GIB, 4 * GIB - 8, end, end + GIB];
        let is_memory = |address: &u64| *address < end && !(3 * GIB..4 * GIB).contains(address);
        let addresses = [inside, outside].concat();
        let (memory, strays) = strays(&kvm, mib, &addresses);
        for address in addresses {
            assert_eq!(strays.contains(&address), !is_memory(&address), "{mib}: {address:#x}");
            if is_memory(&address) {
                assert_eq!(memory.read_obj::<u64>(GuestAddress(address)).unwrap(), address);
            }
        }
    }
}
