//! `KVM_SET_XSAVE`: unsafe in kvm-ioctls because a guest may own features whose state is larger than the buffer.

use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;

/// Sets the 4096-byte XSAVE area.
///
/// # Errors
/// What KVM answers.
pub fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: dynamically enabled features (AMX) are what makes KVM read past 4096 bytes; they need
    // ARCH_REQ_XCOMP_GUEST_PERM, which this process never asks for (its filter has no arch_prctl), and `cpuid` hides them.
    unsafe { vcpu.set_xsave(xsave) }
}
