//! A vCPU thread: run the guest, answer its register accesses, and nothing else.
//!
//! From here on the thread executes beside hostile code. It allocates nothing, opens nothing, and what it may ask of
//! the kernel is `seccomp/vcpu.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use casemate_wire::control::Reason;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::board::{Board, PowerOff};

/// How a vCPU's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The pause flag was seen; the processor's state is complete.
    Paused,
    /// The machine is off: what the board was told.
    Off(PowerOff),
}

/// Runs until the machine is off or `pause` is seen after a signal.
pub fn run(vcpu: &mut VcpuFd, board: &Arc<Board>, pause: &AtomicBool) -> Ended {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => board.mmio_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => board.mmio_write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => board.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if board.port_write(port, data) {
                    return Ended::Off(PowerOff::Reset);
                }
            }
            // Refused by the filter: a general protection fault in the guest.
            Ok(VcpuExit::X86Rdmsr(access)) => {
                *access.error = 1;
                board.refuse_msr(access.index);
            }
            Ok(VcpuExit::X86Wrmsr(access)) => {
                *access.error = 1;
                board.refuse_msr(access.index);
            }
            // `reboot=t`: the kernel resets by a triple fault when there is no keyboard controller to ask.
            Ok(VcpuExit::Shutdown) => return Ended::Off(PowerOff::TripleFault),
            Ok(VcpuExit::Hlt | VcpuExit::Intr) => board.count_other_exit(),
            Ok(VcpuExit::InternalError | VcpuExit::FailEntry(..)) => {
                return Ended::Off(PowerOff::Stuck);
            }
            Ok(_) => return Ended::Off(PowerOff::Unexpected),
            Err(error) if error.errno() == libc::EINTR => {
                board.count_other_exit();
                if pause.load(Ordering::Acquire) {
                    return Ended::Paused;
                }
            }
            Err(error) if error.errno() == libc::EAGAIN => {}
            Err(_) => return Ended::Off(PowerOff::Refused),
        }
    }
}

impl PowerOff {
    /// The reason and a sentence for a machine that went off without having said EXIT.
    #[must_use]
    pub const fn explain(self) -> (Reason, &'static str) {
        match self {
            Self::Reset | Self::TripleFault => {
                (Reason::GuestGone, "the guest reset or powered off without reporting an exit")
            }
            Self::Stuck => {
                (Reason::GuestCrash, "the guest's processor reached a state KVM cannot run")
            }
            Self::Unexpected => {
                (Reason::GuestCrash, "the guest made an exit that this machine has no use for")
            }
            Self::Refused => (Reason::Kvm, "KVM_RUN was refused"),
        }
    }
}
