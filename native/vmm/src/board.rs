//! What is on the guest's bus: virtio windows, a serial port that only talks, and a reset line.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_devices::{I8042, MmioTransport, PortAction, SLOT_COUNT, Serial, Wake, window_of};
use casemate_wire::metrics::Metrics;
use vmm_sys_util::eventfd::EventFd;

const SLOTS: usize = casemate_wire::metrics::DEVICES.len();

/// Why the machine went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PowerOff {
    /// The keyboard controller's reset line.
    Reset = 1,
    /// Triple fault.
    TripleFault = 2,
    /// Internal error or failed entry.
    Stuck = 3,
    /// An exit reason nothing here asked for.
    Unexpected = 4,
    /// `KVM_RUN` failed.
    Refused = 5,
}

impl PowerOff {
    const ALL: [Self; 5] =
        [Self::Reset, Self::TripleFault, Self::Stuck, Self::Unexpected, Self::Refused];

    const fn number(self) -> u8 {
        match self {
            Self::Reset => 1,
            Self::TripleFault => 2,
            Self::Stuck => 3,
            Self::Unexpected => 4,
            Self::Refused => 5,
        }
    }
}

/// The bus. vCPU threads come in for registers, the I/O thread for queues; one lock a device.
#[derive(Debug)]
pub struct Board {
    slots: Vec<Mutex<MmioTransport>>,
    serial: Mutex<Serial>,
    /// Wakes the I/O thread: a device failed as it was started, a doorbell rang that no ioeventfd caught, or the machine
    /// went off.
    wake: EventFd,
    off: AtomicU8,
    /// Doorbells that no ioeventfd caught: of each slot, a bit for each queue.
    rung: [AtomicU8; SLOTS],
    counts: Counts,
    /// The number of the last MSR that was refused.
    last_refused_msr: AtomicU32,
}

/// Why the guest left KVM, how often.
#[derive(Debug, Default)]
struct Counts {
    mmio: AtomicU64,
    port: AtomicU64,
    other: AtomicU64,
    /// MSRs that the guest may not have.
    refused_msrs: AtomicU64,
    /// Addresses and ports that nothing owns: all ones read, writes dropped.
    stray: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Board {
    /// A bus with `slots` in the order of the windows.
    #[must_use]
    pub fn new(slots: Vec<MmioTransport>, serial: Serial, wake: EventFd) -> Self {
        Self {
            slots: slots.into_iter().map(Mutex::new).collect(),
            serial: Mutex::new(serial),
            wake,
            off: AtomicU8::new(0),
            rung: Default::default(),
            counts: Counts::default(),
            last_refused_msr: AtomicU32::new(0),
        }
    }

    /// The device in `slot`, locked. Panics abort the process, so a poisoned lock cannot be seen.
    #[must_use]
    pub fn slot(&self, slot: u32) -> Option<MutexGuard<'_, MmioTransport>> {
        let device = self.slots.get(usize::try_from(slot).ok()?)?;
        Some(device.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All devices, in slot order.
    pub fn slots(&self) -> impl Iterator<Item = MutexGuard<'_, MmioTransport>> {
        self.slots.iter().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The boot log.
    pub fn serial(&self) -> MutexGuard<'_, Serial> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the machine is off, if it is.
    #[must_use]
    pub fn off(&self) -> Option<PowerOff> {
        let number = self.off.load(Ordering::Acquire);
        PowerOff::ALL.into_iter().find(|off| off.number() == number)
    }

    /// A vCPU thread's last word; the I/O thread ends the process, since only it knows what the guest said before.
    pub fn power_off(&self, why: PowerOff) {
        let _ = self.off.compare_exchange(0, why.number(), Ordering::AcqRel, Ordering::Acquire);
        self.wake();
    }

    /// Wakes the I/O thread.
    pub fn wake(&self) {
        // A full eventfd counter means that the thread is woken already.
        let _ = self.wake.write(1);
    }

    /// Accesses to addresses and ports that nothing owns, so far.
    #[must_use]
    pub fn stray_accesses(&self) -> u64 {
        self.counts.stray.load(Ordering::Relaxed)
    }

    /// Notes that the guest tried an MSR which it may not have.
    pub fn refuse_msr(&self, index: u32) {
        count(&self.counts.refused_msrs);
        self.last_refused_msr.store(index, Ordering::Relaxed);
    }

    /// Accesses to MSRs that were refused so far, and the number of the last one.
    #[must_use]
    pub fn refused_msrs(&self) -> (u64, u32) {
        let refused = self.counts.refused_msrs.load(Ordering::Relaxed);
        (refused, self.last_refused_msr.load(Ordering::Relaxed))
    }

    /// Notes an exit that is no access.
    pub fn count_other_exit(&self) {
        count(&self.counts.other);
    }

    /// All counters, of the devices as well.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let Counts { mmio, port, other, refused_msrs, stray } = &self.counts;
        let machine = [mmio, port, other, refused_msrs, stray];
        let mut metrics = Metrics {
            machine: machine.map(|counter| counter.load(Ordering::Relaxed)),
            devices: Metrics::NONE.devices,
        };
        for (numbers, device) in metrics.devices.iter_mut().zip(self.slots()) {
            *numbers = device.counters().in_order();
        }
        metrics
    }

    /// A register read.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        count(&self.counts.mmio);
        if let Some((slot, offset)) = window_of(address)
            && let Some(mut device) = self.slot(slot)
        {
            device.read(offset, data);
            return;
        }
        count(&self.counts.stray);
        data.fill(0xff);
    }

    /// A register write.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        count(&self.counts.mmio);
        if let Some((slot, offset)) = window_of(address)
            && let Some(mut device) = self.slot(slot)
        {
            let wake = device.write(offset, data);
            drop(device);
            match wake {
                Wake::Nothing => {}
                Wake::Notify(queue) => self.ring(slot, queue),
                Wake::Failed => self.wake(),
            }
            return;
        }
        count(&self.counts.stray);
    }

    fn ring(&self, slot: u32, queue: u16) {
        let rung = usize::try_from(slot).ok().and_then(|slot| self.rung.get(slot));
        if let (Some(rung), Some(bit)) = (rung, 1_u8.checked_shl(queue.into())) {
            rung.fetch_or(bit, Ordering::AcqRel);
            self.wake();
        }
    }

    /// Doorbells since the last call that no ioeventfd caught, as (slot, queue).
    pub fn rung(&self) -> impl Iterator<Item = (u32, u16)> + use<> {
        let rung = self.rung.each_ref().map(|bits| bits.swap(0, Ordering::AcqRel));
        (0..SLOT_COUNT).zip(rung).flat_map(|(slot, bits)| {
            let is_rung = move |queue: &u16| {
                bits.checked_shr((*queue).into()).is_some_and(|bits| bits & 1 == 1)
            };
            (0..8_u16).filter(is_rung).map(move |queue| (slot, queue))
        })
    }

    /// A port read, byte by byte as the ISA bus does wider ones. KVM gives a string instruction as one access of many
    /// bytes; they are taken for the ports that follow as well, which nobody but the guest is the worse for.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        count(&self.counts.port);
        data.fill(0xff);
        for (port, byte) in (port..=u16::MAX).zip(data) {
            *byte = match (Serial::register(port), I8042::read(port)) {
                (Some(register), _) => self.serial().read(register),
                (None, Some(value)) => value,
                (None, None) => {
                    count(&self.counts.stray);
                    continue;
                }
            };
        }
    }

    /// A port write; true when the guest asked for a reset.
    #[must_use]
    pub fn port_write(&self, port: u16, data: &[u8]) -> bool {
        count(&self.counts.port);
        (port..=u16::MAX).zip(data).any(|(port, byte)| self.port_write_byte(port, *byte))
    }

    fn port_write_byte(&self, port: u16, value: u8) -> bool {
        if let Some(register) = Serial::register(port) {
            self.serial().write(register, value);
            return false;
        }
        let reset = I8042::write(port, value) == PortAction::Reset;
        if !reset && I8042::read(port).is_none() {
            count(&self.counts.stray);
        }
        reset
    }
}
