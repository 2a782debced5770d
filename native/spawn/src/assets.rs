//! What every VM of this host is made of: VMM, kernel, init, empty scratch. Opened and hashed once, at start; each
//! launch gets descriptors of these very files, so a path that is replaced later changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_ticket::bytes::Digest;
use casemate_ticket::json;
use casemate_ticket::shape::{digest, fields};
use casemate_ticket::spec::{File as HashedFile, KvmClass, Scratch, Vmm};

use crate::config::{Config, EmptyImage};
use crate::landlock;
use crate::refusal::{Refusal, Result};
use crate::sparse;

/// Version suffix (`CONFIG_LOCALVERSION`) of a kernel that was built for software KVM.
const SOFTWARE_KERNEL_MARK: &[u8] = b"casemate-softkvm";
/// Most bytes of a kernel.
const KERNEL_BYTES_MAX: u64 = 256 << 20;
/// How long `casemate-vmm --digests` may take.
const DIGESTS_WAIT: Duration = Duration::from_secs(30);

/// The files and what they are.
#[derive(Debug)]
pub struct Assets {
    /// The VMM's binary.
    pub vmm: OwnedFd,
    /// Its digest and those of its filters.
    pub vmm_digests: Vmm,
    /// Landlock rules that let nothing but that binary be executed; `None` on a kernel without Landlock.
    pub landlock: Option<OwnedFd>,
    /// Digest and size of the kernel.
    pub kernel_file: HashedFile,
    /// The class of KVM the kernel was built for.
    pub kernel_class: KvmClass,
    /// Sealed: what was hashed is what every VM boots.
    kernel: OwnedFd,
    init: OwnedFd,
    /// Size and block digest of the empty file system that every scratch disk starts as.
    pub scratch_file: Scratch,
    scratch: OwnedFd,
    /// The empty file system that volumes begin as, and its size in bytes.
    volume: (OwnedFd, u64),
}

impl Assets {
    /// Opens and hashes everything that `config` names.
    ///
    /// # Errors
    /// `ASSET`, naming the file: missing, too large, no VMM, an init disk of another size than its tree says.
    pub fn open(config: &Config) -> Result<Self> {
        let (vmm, size) = open(&config.vmm)?;
        let digest =
            sparse::digest(vmm.as_fd(), size).map_err(|error| asset(&config.vmm, error))?;
        let text =
            ask_digests(vmm.as_fd(), config.worker).map_err(|error| asset(&config.vmm, error))?;
        let vmm_digests =
            read_digests(&text, digest).map_err(|problem| asset(&config.vmm, problem))?;
        let landlock = landlock::deny_all(vmm.as_fd()).map_err(|error| {
            Refusal::new("ASSET", format!("Landlock rules were refused: {error}"))
        })?;
        let (kernel, size) = open(&config.kernel)?;
        if size > KERNEL_BYTES_MAX {
            return Err(asset(&config.kernel, "is larger than 256 MiB"));
        }
        let bytes = read_whole(&kernel, size).map_err(|error| asset(&config.kernel, error))?;
        let kernel_file = HashedFile { digest: Digest::of(&bytes), size };
        let kernel = sparse::sealed_memfd("casemate-kernel", &bytes)
            .map_err(|error| asset(&config.kernel, error))?;
        let (init, init_size) = open(&config.init)?;
        if init_size != config.init_size() {
            let expected = config.init_size();
            let problem =
                format!("has {init_size} bytes, but data and tree of init_verity are {expected}");
            return Err(asset(&config.init, problem));
        }
        let kernel_class = kernel_class(&bytes);
        let (scratch, scratch_file) = open_empty(&config.scratch)?;
        let (volume, volume_file) = open_empty(&config.volume)?;
        Ok(Self {
            vmm,
            vmm_digests,
            landlock,
            kernel_file,
            kernel_class,
            kernel,
            init,
            scratch_file,
            scratch,
            volume: (volume, volume_file.size),
        })
    }

    /// A descriptor of the kernel for one VM.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn kernel(&self) -> io::Result<OwnedFd> {
        sparse::reopen_read_only(self.kernel.as_fd())
    }

    /// A descriptor of the init disk for one VM.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn init(&self) -> io::Result<OwnedFd> {
        sparse::reopen_read_only(self.init.as_fd())
    }

    /// What volumes begin as, and its size in bytes.
    pub const fn empty_volume(&self) -> (&OwnedFd, u64) {
        (&self.volume.0, self.volume.1)
    }

    /// A scratch disk for one VM. It is made here and not by the agent, so that nobody outside the VM
    /// can change it after it was checked.
    ///
    /// # Errors
    /// A file system without unnamed files, no space, no descriptors left.
    pub fn fresh_scratch(&self, directory: &Path) -> io::Result<OwnedFd> {
        sparse::unnamed_copy(directory, self.scratch.as_fd(), self.scratch_file.size)
    }
}

fn asset(path: &Path, problem: impl std::fmt::Display) -> Refusal {
    Refusal::new("ASSET", format!("{}: {problem}", path.display()))
}

fn open(path: &Path) -> Result<(OwnedFd, u64)> {
    let file = File::open(path).map_err(|error| asset(path, error))?;
    let facts = file.metadata().map_err(|error| asset(path, error))?;
    if !facts.is_file() {
        return Err(asset(path, "is no regular file"));
    }
    Ok((file.into(), facts.len()))
}

fn open_empty(image: &EmptyImage) -> Result<(OwnedFd, Scratch)> {
    let (file, size) = open(&image.path)?;
    if size != image.size {
        return Err(asset(&image.path, format!("has {size} bytes, not {}", image.size)));
    }
    let blocks =
        sparse::block_digest(file.as_fd(), size).map_err(|error| asset(&image.path, error))?;
    if blocks != image.blocks {
        return Err(asset(&image.path, "is not the file system that its block digest says"));
    }
    Ok((file, Scratch { size, size_max: size, blocks }))
}

fn read_whole(file: &OwnedFd, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    File::from(file.try_clone()?).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn kernel_class(bytes: &[u8]) -> KvmClass {
    let marked = bytes.windows(SOFTWARE_KERNEL_MARK.len()).any(|part| part == SOFTWARE_KERNEL_MARK);
    if marked { KvmClass::Software } else { KvmClass::Hardware }
}

/// Runs the VMM's binary with `--digests`, as the workers' user, and returns what it prints.
fn ask_digests(vmm: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> io::Result<Vec<u8>> {
    let mut child = Command::new(format!("/proc/self/fd/{}", vmm.as_raw_fd()))
        .arg0("casemate-vmm")
        .arg("--digests")
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let answer = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe.into()).and_then(read_answer);
    // It has said all it has to say.
    child.kill()?;
    child.wait()?;
    answer
}

fn read_answer(mut pipe: std::process::ChildStdout) -> io::Result<Vec<u8>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(DIGESTS_WAIT).map_err(io::Error::other)?;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while text.len() <= buffer.len() {
        let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
        if poll(&mut ready, Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match pipe.read(&mut buffer)? {
            0 => break,
            count => text.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(text)
}

fn read_digests(text: &[u8], binary: Digest) -> std::result::Result<Vmm, String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let said =
        |error: &dyn std::fmt::Display| format!("--digests printed what is no answer: {error}");
    let value = json::parse(text, 1024).map_err(|error| said(&error))?;
    let names = ["control", "io", "vcpu"];
    let [control, io, vcpu] = fields(&value, "digests", names).map_err(|error| said(&error))?;
    Ok(Vmm {
        digest: binary,
        filter_control: digest(control, "control").map_err(|error| said(&error))?,
        filter_io: digest(io, "io").map_err(|error| said(&error))?,
        filter_vcpu: digest(vcpu, "vcpu").map_err(|error| said(&error))?,
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    #[test]
    fn reads_filter_digests_and_nothing_else() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let (a, b, c) = (digest("a"), digest("b"), digest("c"));
        let text = format!("{{\"control\":\"{a}\",\"io\":\"{b}\",\"vcpu\":\"{c}\"}}\n");
        let vmm = read_digests(text.as_bytes(), Digest([0; 32])).unwrap();
        assert_eq!(vmm.filter_vcpu.to_string(), c);
        assert_eq!(vmm.filter_control.to_string(), a);
        for bad in [text.replace("io", "ix"), text.replace('a', "A"), String::new(), "{}".into()] {
            assert!(read_digests(bad.as_bytes(), Digest([0; 32])).is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_a_kernel_for_software_kvm_by_its_version() {
        assert_eq!(
            kernel_class(b"\x7fELF..Linux version 6.1.192-casemate-softkvm ("),
            KvmClass::Software
        );
        assert_eq!(kernel_class(b"\x7fELF..Linux version 6.1.192-casemate ("), KvmClass::Hardware);
    }
}
