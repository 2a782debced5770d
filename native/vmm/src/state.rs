//! The saved machine: everything a template holds besides the guest's memory.
//!
//! The bytes come from a file, so they are parsed as hostile although spawn sealed them and the ticket names their
//! digest: every count is bounded before it is believed, and nothing may be left over at the end (the lesson of
//! CVE-2023-50711 and of every state parser that trusted its own file).

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MAGIC: [u8; 8] = *b"casevmst";
const VERSION: u32 = 1;
/// Interrupt chips of a PC: two PICs and the I/O APIC.
pub const CHIPS: usize = 3;
const VCPUS_MAX: u32 = 8;
const MSRS_MAX: u32 = 512;
const CPUID_MAX: u32 = 256;
const DEVICES_LENGTH_MAX: u32 = 64 << 10;

/// The state bytes are not what this VMM writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved machine is not valid at byte {at}: {what}")]
pub struct StateError {
    /// Offset at which reading stopped.
    pub at: usize,
    /// What was being read.
    pub what: &'static str,
}

/// One processor.
#[derive(Debug)]
pub struct VcpuState {
    /// CPUID table; set first, since other state depends on it.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// TSC frequency in kHz.
    pub tsc_khz: u32,
    /// Segment and control registers.
    pub sregs: kvm_sregs,
    /// Model-specific registers.
    pub msrs: Vec<kvm_msr_entry>,
    /// Extended control registers.
    pub xcrs: kvm_xcrs,
    /// FPU and vector registers.
    pub xsave: kvm_xsave,
    /// General registers.
    pub regs: kvm_regs,
    /// Local APIC.
    pub lapic: kvm_lapic_state,
    /// Pending exceptions and interrupts.
    pub events: kvm_vcpu_events,
    /// Running, halted, waiting for SIPI.
    pub mp_state: kvm_mp_state,
    /// Debug registers.
    pub debug: kvm_debugregs,
}

/// The whole machine.
#[derive(Debug)]
pub struct MachineState {
    /// Guest memory in MiB that this state belongs to.
    pub memory_mib: u32,
    /// Processors, by id.
    pub vcpus: Vec<VcpuState>,
    /// PIC, PIC, I/O APIC.
    pub chips: [kvm_irqchip; CHIPS],
    /// KVM clock.
    pub clock: kvm_clock_data,
    /// Virtio devices, in the devices' own format.
    pub devices: Vec<u8>,
}

impl MachineState {
    /// The bytes of a state file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, &VERSION);
        put(&mut out, &self.memory_mib);
        put(&mut out, &count(self.vcpus.len()));
        for vcpu in &self.vcpus {
            put(&mut out, &vcpu.tsc_khz);
            put(&mut out, &count(vcpu.cpuid.len()));
            vcpu.cpuid.iter().for_each(|entry| put(&mut out, entry));
            put(&mut out, &vcpu.sregs);
            put(&mut out, &count(vcpu.msrs.len()));
            vcpu.msrs.iter().for_each(|entry| put(&mut out, entry));
            put(&mut out, &vcpu.xcrs);
            put(&mut out, &vcpu.xsave);
            put(&mut out, &vcpu.regs);
            put(&mut out, &vcpu.lapic);
            put(&mut out, &vcpu.events);
            put(&mut out, &vcpu.mp_state);
            put(&mut out, &vcpu.debug);
        }
        self.chips.iter().for_each(|chip| put(&mut out, chip));
        put(&mut out, &self.clock);
        put(&mut out, &count(self.devices.len()));
        out.extend_from_slice(&self.devices);
        out
    }

    /// Parses a state file.
    ///
    /// # Errors
    /// [`StateError`] with the place of the first byte that does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = Reader { bytes, at: 0 };
        reader.expect(&MAGIC, "magic")?;
        reader.expect(&VERSION.to_le_bytes(), "version")?;
        let memory_mib = reader.take("memory size")?;
        let vcpus = reader.count(VCPUS_MAX, "number of processors")?;
        let vcpus = (0..vcpus).map(|_| decode_vcpu(&mut reader)).collect::<Result<_, _>>()?;
        let chips = [reader.take("PIC")?, reader.take("second PIC")?, reader.take("I/O APIC")?];
        let clock = reader.take("clock")?;
        let length = reader.count(DEVICES_LENGTH_MAX, "length of the devices")?;
        let length = usize::try_from(length).map_err(|_| reader.refuse("length of the devices"))?;
        let devices = reader.slice(length, "devices")?.to_vec();
        if reader.at != bytes.len() {
            return Err(reader.refuse("end of file"));
        }
        Ok(Self { memory_mib, vcpus, chips, clock, devices })
    }
}

fn decode_vcpu(reader: &mut Reader<'_>) -> Result<VcpuState, StateError> {
    let tsc_khz = reader.take("TSC frequency")?;
    let cpuid = reader.list(CPUID_MAX, "CPUID")?;
    let sregs = reader.take("segment registers")?;
    let msrs = reader.list(MSRS_MAX, "MSRs")?;
    Ok(VcpuState {
        cpuid,
        tsc_khz,
        sregs,
        msrs,
        xcrs: reader.take("XCRs")?,
        xsave: reader.take("XSAVE area")?,
        regs: reader.take("registers")?,
        lapic: reader.take("local APIC")?,
        events: reader.take("events")?,
        mp_state: reader.take("MP state")?,
        debug: reader.take("debug registers")?,
    })
}

fn put<T: IntoBytes + Immutable>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(value.as_bytes());
}

/// A list longer than `u32` cannot be made here; if it were, the reader would refuse it.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn refuse(&self, what: &'static str) -> StateError {
        StateError { at: self.at, what }
    }

    fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], StateError> {
        let end = self.at.checked_add(length).ok_or_else(|| self.refuse(what))?;
        let slice = self.bytes.get(self.at..end).ok_or_else(|| self.refuse(what))?;
        self.at = end;
        Ok(slice)
    }

    fn expect(&mut self, wanted: &[u8], what: &'static str) -> Result<(), StateError> {
        let start = self.at;
        if self.slice(wanted.len(), what)? == wanted {
            return Ok(());
        }
        Err(StateError { at: start, what })
    }

    fn take<T: FromBytes>(&mut self, what: &'static str) -> Result<T, StateError> {
        let start = self.at;
        let bytes = self.slice(size_of::<T>(), what)?;
        T::read_from_bytes(bytes).map_err(|_| StateError { at: start, what })
    }

    fn count(&mut self, most: u32, what: &'static str) -> Result<u32, StateError> {
        let start = self.at;
        let count = self.take(what)?;
        if count <= most { Ok(count) } else { Err(StateError { at: start, what }) }
    }

    fn list<T: FromBytes>(&mut self, most: u32, what: &'static str) -> Result<Vec<T>, StateError> {
        let count = self.count(most, what)?;
        (0..count).map(|_| self.take(what)).collect()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]
mod tests {
    use super::*;

    fn sample() -> MachineState {
        let vcpu = || VcpuState {
            cpuid: vec![kvm_cpuid_entry2 { function: 1, ..kvm_cpuid_entry2::default() }],
            tsc_khz: 2_400_000,
            sregs: kvm_sregs::default(),
            msrs: vec![kvm_msr_entry { index: 0x10, data: 7, ..kvm_msr_entry::default() }],
            xcrs: kvm_xcrs::default(),
            xsave: kvm_xsave::default(),
            regs: kvm_regs { rip: 0xffff_ffff_8100_0000, ..kvm_regs::default() },
            lapic: kvm_lapic_state::default(),
            events: kvm_vcpu_events::default(),
            mp_state: kvm_mp_state { mp_state: 3 },
            debug: kvm_debugregs::default(),
        };
        MachineState {
            memory_mib: 128,
            vcpus: vec![vcpu(), vcpu()],
            chips: [kvm_irqchip::default(), kvm_irqchip::default(), kvm_irqchip::default()],
            clock: kvm_clock_data::default(),
            devices: vec![1, 2, 3],
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let bytes = sample().encode();
        let read = MachineState::decode(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.vcpus[1].regs.rip, 0xffff_ffff_8100_0000);
        assert_eq!(read.devices, [1, 2, 3]);
    }

    #[test]
    fn refuses_every_shorter_and_every_longer_file() {
        let bytes = sample().encode();
        for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            assert!(MachineState::decode(&bytes[..length]).is_err(), "accepted {length} bytes");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(MachineState::decode(&longer).unwrap_err().what, "end of file");
    }

    #[test]
    fn refuses_counts_above_their_limit_before_it_allocates() {
        let mut bytes = sample().encode();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(MachineState::decode(&bytes).unwrap_err().what, "number of processors");
        let mut bytes = sample().encode();
        bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(MachineState::decode(&bytes).unwrap_err().what, "CPUID");
        let mut bytes = sample().encode();
        bytes[8] = 2;
        assert_eq!(MachineState::decode(&bytes).unwrap_err().what, "version");
    }
}
