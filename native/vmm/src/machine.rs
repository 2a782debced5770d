//! Making the virtual machine: KVM's side of it, memory, processors and the bus; booted or restored.

use std::fs::File;
use std::sync::Arc;

use casemate_devices::{
    Backend, Balloon, Block, BlockKind, BucketSize, Console, Device, Interrupt, MmioTransport, Net,
    Network, QUEUE_NOTIFY_OFFSET, Rate, Reader, Rng, SLOT_BALLOON, SLOT_CONSOLE, SLOT_COUNT,
    SLOT_IMAGE, SLOT_INIT, SLOT_NET, SLOT_RNG, SLOT_SCRATCH, SLOT_VOLUME, Serial, cmdline_entry,
    irq, window,
};
use casemate_ticket::rates::{Bucket, Rate as Limit, Rates};
use casemate_ticket::spec::Machine as Shape;
use casemate_wire::control::Reason;
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::board::Board;
use crate::failure::{Failure, failure};
use crate::launch::{Parts, Pod, Start};
use crate::state::MachineState;
use crate::{cpuid, memory, memory_unsafe, mptable, msr, pvh, vcpu_state};

/// Above guest memory, where KVM on VMX without unrestricted guest keeps three pages of its own.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;
/// The console first: Linux numbers virtio devices as they come, and the control port is then `/dev/vport0p1`.
const PROBE_ORDER: [u32; 7] =
    [SLOT_CONSOLE, SLOT_INIT, SLOT_IMAGE, SLOT_SCRATCH, SLOT_RNG, SLOT_NET, SLOT_BALLOON];
/// After all others.
const VOLUME_ORDER: std::ops::Range<u32> = SLOT_VOLUME..SLOT_COUNT;

/// Where image, scratch and volumes are.
const DISK_SLOTS: [u32; 6] =
    [SLOT_IMAGE, SLOT_SCRATCH, SLOT_VOLUME, SLOT_VOLUME + 1, SLOT_VOLUME + 2, SLOT_VOLUME + 3];

/// A queue's doorbell: the guest's write to `QueueNotify` makes it readable without an exit to this process.
#[derive(Debug)]
pub struct Doorbell {
    /// The device.
    pub slot: u32,
    /// The queue.
    pub queue: u16,
    /// Readable after a notification.
    pub event: EventFd,
}

/// A machine that is ready to run and has not.
#[derive(Debug)]
pub struct Machine {
    /// `/dev/kvm`; closed before the guest runs, but for a template's.
    pub kvm: Kvm,
    /// The VM.
    pub vm: VmFd,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// Processors, by id.
    pub vcpus: Vec<VcpuFd>,
    /// The bus.
    pub board: Arc<Board>,
    /// All queues' doorbells.
    pub doorbells: Vec<Doorbell>,
    /// Readable when the board has something for the I/O thread.
    pub wake: EventFd,
    /// From a template.
    pub restored: bool,
}

/// An interrupt line into the in-kernel I/O APIC.
#[derive(Debug)]
struct Line(EventFd);

impl Interrupt for Line {
    fn raise(&self) {
        // The kernel consumes an irqfd at once; the counter cannot fill up.
        let _ = self.0.write(1);
    }
}

fn refuse(what: &str, error: impl std::fmt::Display) -> Failure {
    failure(Reason::Kvm, format_args!("{what}: {error}"))
}

/// An eventfd as every thread here wants it.
///
/// # Errors
/// `KVM` when the process has no descriptor left.
pub fn event() -> Result<EventFd, Failure> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|error| refuse("eventfd", error))
}

/// Builds the machine of `parts` on `kvm` and boots or restores it, up to the first instruction. Gives back what of
/// the pod is not part of the machine.
///
/// # Errors
/// `KVM`, `MACHINE`, `KERNEL_LOAD` or `TEMPLATE_STATE`, naming the step.
pub fn build(kvm: Kvm, parts: Parts) -> Result<(Machine, Option<Pod>), Failure> {
    let Parts { machine: shape, limits, start, init, mut pod } = parts;
    let memory = memory::allocate(shape.memory_mib)?;
    let vm = kvm.create_vm().map_err(|error| refuse("KVM_CREATE_VM", error))?;
    vm.set_tss_address(TSS_ADDRESS).map_err(|error| refuse("TSS address", error))?;
    vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
        .map_err(|error| refuse("identity map", error))?;
    vm.create_irq_chip().map_err(|error| refuse("interrupt chip", error))?;
    msr::deny_by_default(&vm)?;
    memory_unsafe::register(&vm, &memory)?;
    let vcpus = (0..u64::from(shape.vcpus))
        .map(|id| vm.create_vcpu(id).map_err(|error| refuse("KVM_CREATE_VCPU", error)))
        .collect::<Result<Vec<_>, _>>()?;
    vcpus.iter().try_for_each(cpuid::enforce)?;

    let disks = pod.as_mut().map(Pod::take_disks).unwrap_or_default();
    let wake = event()?;
    let restored = matches!(start, Start::Restore { .. });
    // A template's disks but the first have no capacity; after a restore the real ones are put in.
    let (now, later) = if restored { (vec![], disks) } else { (disks, vec![]) };
    let devices = devices(Backend::Verified(init), now, &limits.rates, &memory)?;
    let mut doorbells = Vec::new();
    let mut slots = Vec::new();
    for (slot, device) in (0..).zip(devices) {
        add_doorbells(&vm, slot, &device, &mut doorbells)?;
        let line = event()?;
        vm.register_irqfd(&line, irq(slot)).map_err(|error| refuse("irqfd", error))?;
        slots.push(MmioTransport::new(device, memory.clone(), Box::new(Line(line))));
    }
    let serial = Serial::new(usize::try_from(limits.boot_log_bytes).unwrap_or(0));
    let board_wake = wake.try_clone().map_err(|error| refuse("eventfd", error))?;
    let board = Arc::new(Board::new(slots, serial, board_wake));
    let machine = Machine { kvm, vm, memory, vcpus, board, doorbells, wake, restored };
    match start {
        Start::Cold { mut kernel } => machine.boot(&shape, &mut kernel)?,
        Start::Restore { state, memory } => machine.restore(&shape, &state, &memory)?,
    }
    for (slot, backend) in DISK_SLOTS.into_iter().zip(later) {
        machine.attach(slot, backend)?;
    }
    if let Some(network) = pod.as_mut().and_then(Pod::take_network) {
        machine.connect(network)?;
    }
    Ok((machine, pod))
}

/// `disks` are image, scratch and volumes, those that are there.
fn devices(
    init: Backend,
    disks: Vec<Backend>,
    rates: &Rates,
    memory: &GuestMemoryMmap,
) -> Result<Vec<Device>, Failure> {
    let mut disks = disks.into_iter();
    let mut next = || disks.next().unwrap_or(Backend::Absent);
    let disk = |kind, backend, id| {
        Block::new(kind, backend, id)
            .map(|block| block.limited(rate(&rates.disk_read), rate(&rates.disk_write)))
            .map(Device::Block)
            .map_err(|error| refuse(id, error))
    };
    let mut devices = vec![
        disk(BlockKind::Image, init, "init")?,
        disk(BlockKind::Image, next(), "image")?,
        disk(BlockKind::Scratch, next(), "scratch")?,
        Device::Console(Console::new()),
        Device::Rng(Rng::new().limited(rate(&rates.rng))),
        Device::Net(Net::new()),
        Device::Balloon(Balloon::new(Box::new(memory::Pages(memory.clone())))),
    ];
    for _ in VOLUME_ORDER {
        devices.push(disk(BlockKind::Scratch, next(), "volume")?);
    }
    Ok(devices)
}

/// Full buckets of a spec's sizes.
pub fn rate(limit: &Limit) -> Rate {
    let size = |bucket: Bucket| BucketSize {
        capacity: bucket.capacity,
        burst: bucket.burst,
        refill_per_second: bucket.refill,
    };
    Rate::new(limit.operations.map(size), limit.bytes.map(size))
}

fn add_doorbells(
    vm: &VmFd,
    slot: u32,
    device: &Device,
    doorbells: &mut Vec<Doorbell>,
) -> Result<(), Failure> {
    let address = IoEventAddress::Mmio(window(slot).saturating_add(QUEUE_NOTIFY_OFFSET));
    for (queue, _) in (0_u16..).zip(device.queue_sizes()) {
        let event = event()?;
        vm.register_ioevent(&event, &address, u32::from(queue))
            .map_err(|error| refuse("ioeventfd", error))?;
        doorbells.push(Doorbell { slot, queue, event });
    }
    Ok(())
}

impl Machine {
    fn boot(&self, shape: &Shape, kernel: &mut File) -> Result<(), Failure> {
        let vcpus = u8::try_from(shape.vcpus).unwrap_or(u8::MAX);
        let words = PROBE_ORDER.into_iter().chain(VOLUME_ORDER).map(cmdline_entry);
        let cmdline =
            std::iter::once(shape.cmdline.clone()).chain(words).collect::<Vec<_>>().join(" ");
        let bytes = memory::bytes(shape.memory_mib);
        let entry = pvh::load(&self.memory, kernel, &cmdline, bytes)?;
        mptable::write(&self.memory, vcpus)?;
        for (id, vcpu) in (0..).zip(&self.vcpus) {
            let table = cpuid::template(&self.kvm, id, vcpus)?;
            vcpu.set_cpuid2(&table).map_err(|error| refuse("CPUID", error))?;
            msr::switch_on_fast_strings(vcpu)?;
            if id == 0 {
                pvh::set_registers(vcpu, entry)?;
            }
        }
        Ok(())
    }

    fn restore(&self, shape: &Shape, state: &[u8], template: &File) -> Result<(), Failure> {
        let refuse = |text: std::fmt::Arguments<'_>| failure(Reason::TemplateState, text);
        let state = MachineState::decode(state).map_err(|error| refuse(format_args!("{error}")))?;
        if state.memory_mib != shape.memory_mib || state.vcpus.len() != self.vcpus.len() {
            return Err(refuse(format_args!("the template is of another shape")));
        }
        memory::lay_template(&self.memory, template)?;
        for (vcpu, saved) in self.vcpus.iter().zip(&state.vcpus) {
            vcpu_state::restore(vcpu, saved)?;
        }
        for chip in &state.chips {
            self.vm.set_irqchip(chip).map_err(|error| refuse(format_args!("irqchip: {error}")))?;
        }
        let mut clock = state.clock;
        clock.flags = 0;
        self.vm.set_clock(&clock).map_err(|error| refuse(format_args!("clock: {error}")))?;
        let mut reader = Reader::new(&state.devices);
        for mut device in self.board.slots() {
            device
                .restore(&mut reader)
                .map_err(|error| refuse(format_args!("a device: {error}")))?;
        }
        if reader.rest().is_empty() {
            return Ok(());
        }
        Err(refuse(format_args!("bytes are left over after the devices")))
    }

    fn attach(&self, slot: u32, backend: Backend) -> Result<(), Failure> {
        let mut device = self.board.slot(slot).ok_or_else(|| refuse("slot", "is missing"))?;
        device.attach(backend).map_err(|error| refuse("disk", error))
    }

    /// The driver was told an address and a size in the template; guest-init sets what the spec says.
    fn connect(&self, network: Network) -> Result<(), Failure> {
        let mut card = self.board.slot(SLOT_NET).ok_or_else(|| refuse("slot", "is missing"))?;
        card.connect(network).map_err(|error| refuse("network", error))
    }

    /// The whole state of a machine whose processors do not run.
    ///
    /// # Errors
    /// `KVM` naming the call that was refused.
    pub fn save(&self, memory_mib: u32) -> Result<MachineState, Failure> {
        let mut chips = [kvm_bindings::kvm_irqchip::default(); crate::state::CHIPS];
        for (id, chip) in (0..).zip(&mut chips) {
            chip.chip_id = id;
            self.vm.get_irqchip(chip).map_err(|error| refuse("irqchip", error))?;
        }
        let vcpus = self
            .vcpus
            .iter()
            .map(|vcpu| vcpu_state::save(&self.kvm, vcpu))
            .collect::<Result<_, _>>()?;
        let mut devices = Vec::new();
        self.board.slots().for_each(|device| device.save(&mut devices));
        let clock = self.vm.get_clock().map_err(|error| refuse("clock", error))?;
        Ok(MachineState { memory_mib, vcpus, chips, clock, devices })
    }
}
