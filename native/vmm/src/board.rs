//! What is on the guest's bus: five virtio windows, a serial port that only talks, and a reset line.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_devices::{I8042, MmioTransport, PortAction, Serial, Wake, window_of};
use vmm_sys_util::eventfd::EventFd;

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
    /// Wakes the I/O thread: a device was started or reset, or the machine went off.
    wake: EventFd,
    off: AtomicU8,
    /// Doorbells that no ioeventfd caught: bit `8 * slot + queue`.
    rung: AtomicU64,
    /// Accesses to addresses and ports that nothing owns: all ones read, writes dropped, counted.
    stray: AtomicU64,
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
            rung: AtomicU64::new(0),
            stray: AtomicU64::new(0),
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
        self.stray.load(Ordering::Relaxed)
    }

    /// A register read.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if let Some((slot, offset)) = window_of(address)
            && let Some(mut device) = self.slot(slot)
        {
            device.read(offset, data);
            return;
        }
        self.stray.fetch_add(1, Ordering::Relaxed);
        data.fill(0xff);
    }

    /// A register write.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((slot, offset)) = window_of(address)
            && let Some(mut device) = self.slot(slot)
        {
            let wake = device.write(offset, data);
            drop(device);
            if let Wake::Notify(queue) = wake {
                self.ring(slot, queue);
            }
            return;
        }
        self.stray.fetch_add(1, Ordering::Relaxed);
    }

    fn ring(&self, slot: u32, queue: u16) {
        let bit = slot.saturating_mul(8).saturating_add(u32::from(queue));
        if queue < 8
            && let Some(bit) = 1_u64.checked_shl(bit)
        {
            self.rung.fetch_or(bit, Ordering::AcqRel);
            self.wake();
        }
    }

    /// Doorbells since the last call that no ioeventfd caught, as (slot, queue).
    pub fn rung(&self) -> impl Iterator<Item = (u32, u16)> + use<> {
        let bits = self.rung.swap(0, Ordering::AcqRel);
        (0..5_u32).flat_map(|slot| (0..8_u16).map(move |queue| (slot, queue))).filter(
            move |&(slot, queue)| {
                let bit = slot.saturating_mul(8).saturating_add(u32::from(queue));
                bits.checked_shr(bit).unwrap_or(0) & 1 == 1
            },
        )
    }

    /// A port read, byte by byte as the ISA bus does wider ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        for (port, byte) in (port..=u16::MAX).zip(data) {
            *byte = match (Serial::register(port), I8042::read(port)) {
                (Some(register), _) => self.serial().read(register),
                (None, Some(value)) => value,
                (None, None) => {
                    self.stray.fetch_add(1, Ordering::Relaxed);
                    0xff
                }
            };
        }
    }

    /// A port write; true when the guest asked for a reset.
    #[must_use]
    pub fn port_write(&self, port: u16, data: &[u8]) -> bool {
        (port..=u16::MAX).zip(data).any(|(port, byte)| self.port_write_byte(port, *byte))
    }

    fn port_write_byte(&self, port: u16, value: u8) -> bool {
        if let Some(register) = Serial::register(port) {
            self.serial().write(register, value);
            return false;
        }
        let reset = I8042::write(port, value) == PortAction::Reset;
        if !reset && I8042::read(port).is_none() {
            self.stray.fetch_add(1, Ordering::Relaxed);
        }
        reset
    }
}
