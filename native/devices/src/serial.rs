//! The boot log: a 16550 that only transmits (port 0x3f8), and keeps a bounded part of it.
//!
//! The guest decides how much it writes (CVE-2020-27173), so what is kept is fixed when the port
//! is made: the first half, which tells how the boot began, and the last half, which tells how it
//! ended. There is no receiver and no interrupt, and the transmitter is always empty.

use std::collections::VecDeque;
use std::io::Write;

use crate::number::{bump, widen};

const FIRST_PORT: u16 = 0x3f8;
const PORTS: u16 = 8;
const TRANSMIT: u16 = 0;
const INTERRUPT_ID: u16 = 2;
const LINE_CONTROL: u16 = 3;
const LINE_STATUS: u16 = 5;
/// Line control bit 7: offsets 0 and 1 are the baud rate, not data.
const DIVISOR_LATCH: u8 = 0x80;
/// Transmit holding register and transmitter both empty.
const TRANSMITTER_EMPTY: u8 = 0x60;
const NO_INTERRUPT: u8 = 0x01;

/// Bytes of the line that stands for what was not kept, with the largest number.
const GAP_BYTES_MAX: usize = 40;

/// The port and what it kept.
#[derive(Debug)]
pub struct Serial {
    half: usize,
    first: Vec<u8>,
    last: VecDeque<u8>,
    dropped: u64,
    divisor_latch: bool,
}

impl Serial {
    /// A port that keeps at most `bytes_max` bytes. All of them are allocated here.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let half = bytes_max.div_euclid(2);
        Self {
            half,
            first: Vec::with_capacity(half),
            last: VecDeque::with_capacity(half),
            dropped: 0,
            divisor_latch: false,
        }
    }

    /// The register of an I/O port, when the port is one of this device.
    #[must_use]
    pub fn register(port: u16) -> Option<u16> {
        port.checked_sub(FIRST_PORT).filter(|register| *register < PORTS)
    }

    /// A guest's read of a register.
    #[must_use]
    pub fn read(&self, register: u16) -> u8 {
        match register {
            LINE_STATUS => TRANSMITTER_EMPTY,
            INTERRUPT_ID => NO_INTERRUPT,
            _ => 0,
        }
    }

    /// A guest's write of a register. Never allocates.
    pub fn write(&mut self, register: u16, value: u8) {
        match register {
            TRANSMIT if !self.divisor_latch => self.keep(value),
            LINE_CONTROL => self.divisor_latch = value & DIVISOR_LATCH != 0,
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.first.len() < self.half {
            self.first.push(byte);
            return;
        }
        if self.last.len() >= self.half {
            bump(&mut self.dropped);
            if self.last.pop_front().is_none() {
                return;
            }
        }
        self.last.push_back(byte);
    }

    /// Bytes that were not kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes the guest wrote.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.dropped.saturating_add(widen(self.first.len())).saturating_add(widen(self.last.len()))
    }

    /// A place for [`Self::log_to`], large enough that nothing is allocated there.
    #[must_use]
    pub fn log_room(&self) -> Vec<u8> {
        Vec::with_capacity(self.half.saturating_mul(2).saturating_add(GAP_BYTES_MAX))
    }

    /// Puts into `log` what was kept, with a line in the middle when something was not. The guest's bytes as they
    /// are: whoever prints them must not trust them.
    pub fn log_to(&self, log: &mut Vec<u8>) {
        log.clear();
        log.extend_from_slice(&self.first);
        if self.dropped > 0 {
            // A vector takes every byte that fits its memory: this cannot fail.
            let _ = write!(log, "\n[{} bytes not kept]\n", self.dropped);
        }
        log.extend(&self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(serial: &mut Serial, text: &[u8]) {
        for byte in text {
            serial.write(TRANSMIT, *byte);
        }
    }

    fn log(serial: &Serial) -> Vec<u8> {
        let mut log = serial.log_room();
        let room = log.capacity();
        serial.log_to(&mut log);
        assert_eq!(log.capacity(), room, "it fits");
        log
    }

    #[test]
    fn keeps_the_beginning_and_the_end_and_counts_the_middle() {
        let mut serial = Serial::new(8);
        print(&mut serial, b"abcd");
        assert_eq!(log(&serial), b"abcd");
        print(&mut serial, b"efghij");
        assert_eq!(log(&serial), b"abcd\n[2 bytes not kept]\nghij");
        assert_eq!((serial.written(), serial.dropped()), (10, 2));
    }

    #[test]
    fn a_flood_takes_no_more_memory() {
        let mut serial = Serial::new(64);
        let room = (serial.first.capacity(), serial.last.capacity());
        for _ in 0..10_000 {
            print(&mut serial, b"0123456789");
        }
        assert_eq!(room, (serial.first.capacity(), serial.last.capacity()));
        assert_eq!(serial.written(), 100_000);
        let mut none = Serial::new(0);
        print(&mut none, b"abc");
        assert_eq!((none.written(), none.dropped()), (3, 3));
    }

    #[test]
    fn the_baud_rate_is_not_text() {
        let mut serial = Serial::new(8);
        serial.write(LINE_CONTROL, 0x83);
        print(&mut serial, b"\x01");
        serial.write(LINE_CONTROL, 0x03);
        print(&mut serial, b"x");
        assert_eq!(log(&serial), b"x");
    }

    #[test]
    fn is_always_ready_and_never_interrupts() {
        let serial = Serial::new(8);
        assert_eq!(Serial::register(0x3fd).map(|register| serial.read(register)), Some(0x60));
        assert_eq!(Serial::register(0x3fa).map(|register| serial.read(register)), Some(1));
        assert_eq!(Serial::register(0x3f8).map(|register| serial.read(register)), Some(0));
        assert_eq!(Serial::register(0x3f7), None);
        assert_eq!(Serial::register(0x400), None);
    }
}
