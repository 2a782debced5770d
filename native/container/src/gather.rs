//! From the launch document to checked parts: the last wall. Spawn and its starter have checked all of this already.

use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use casemate_devices::{Verified, Verity};
use casemate_ticket::container::Container;
use casemate_ticket::document::{DOCUMENT_BYTES_MAX, Mode};
use casemate_ticket::exec;
use casemate_ticket::host_path;
use casemate_ticket::spec::{Means, Spec};
use casemate_vmm::descriptors::{Access, STREAM, check_blocks, content, file};
use casemate_vmm::failure::{Failure, failure};
use casemate_vmm::gate::Gate;
use casemate_vmm::launch::{admit, read_document};
use casemate_wire::control::Reason;

pub use casemate_vmm::descriptors::present;

/// The tenant's image, as the agent has it.
pub const IMAGE: RawFd = 6;
/// An empty file that nobody but spawn can reach, for a copy of it.
pub const COPY: RawFd = 7;
/// The pod's scratch disk.
pub const SCRATCH: RawFd = 8;
/// The pod's log.
pub const LOG: RawFd = 9;
/// The OCI runtime.
pub const RUNTIME: RawFd = 10;
/// This very program, sealed.
pub const PROGRAM: RawFd = 11;
/// Content of the app's files, if it has any; volumes come after it, or in its place, and then paths of the host.
pub const FILES: RawFd = 12;

/// Everything that a pod is made of, each checked against the spec.
#[derive(Debug)]
pub struct Parts {
    /// The spec.
    pub spec: Spec,
    /// Of the spec.
    pub container: Container,
    /// What lets processes in beside the app.
    pub gate: Gate,
    /// The agent's stream.
    pub stream: OwnedFd,
    /// The image.
    pub image: Verified,
    /// Where it is copied to.
    pub copy: File,
    /// The scratch disk.
    pub scratch: File,
    /// The log.
    pub log: File,
    /// Content of the app's files.
    pub files: Vec<u8>,
    /// The OCI runtime.
    pub runtime: OwnedFd,
    /// This program.
    pub program: OwnedFd,
    /// Disks of its volumes, in the order in which they are among the app's mounts.
    pub volumes: Vec<File>,
    /// Trees of paths of the host, likewise, which are mounted nowhere yet.
    pub host_paths: Vec<OwnedFd>,
}

/// Reads document and descriptors and checks everything.
///
/// # Errors
/// `LAUNCH_DOCUMENT`, `TICKET`, `MACHINE` or `DESCRIPTOR`, with a sentence.
pub fn gather() -> Result<Parts, Failure> {
    let document = read_document()?;
    if document.mode != Mode::Launch {
        return Err(failure(Reason::LaunchDocument, format_args!("there are no templates here")));
    }
    let spec = admit(&document)?.spec;
    let pod = exec::Pod { launch_id: spec.launch_id.clone(), tenant: spec.tenant.clone() };
    let gate = Gate::new(document.context, pod);
    let Means::Container(container) = &spec.means else {
        let text = "the spec is not of a pod below level vm";
        return Err(failure(Reason::Machine, format_args!("{text}")));
    };
    let container = *container;
    let stream = present(STREAM, "pod stream")?;
    let image = file(IMAGE, "image", spec.image.size, Access::Read)?;
    let verity = Verity {
        data_blocks: spec.image.data_blocks,
        root: spec.image.root,
        salt: spec.image.salt.clone(),
    };
    let image = Verified::new(image, spec.image.size, verity)
        .map_err(|error| failure(Reason::Descriptor, format_args!("image: {error}")))?;
    let scratch = file(SCRATCH, "scratch", spec.scratch.size, Access::ReadWrite)?;
    check_blocks(&scratch, "scratch", spec.scratch.size, spec.scratch.blocks)?;
    Ok(Parts {
        copy: file(COPY, "copy", 0, Access::ReadWrite)?,
        log: file(LOG, "log", spec.log_size, Access::ReadWrite)?,
        files: content(FILES, spec.files.as_ref())?,
        runtime: present(RUNTIME, "runtime")?,
        program: present(PROGRAM, "program")?,
        volumes: volumes(&spec)?,
        host_paths: host_paths(&spec)?,
        spec,
        container,
        gate,
        stream,
        image,
        scratch,
    })
}

fn first_volume(spec: &Spec) -> RawFd {
    if spec.files.is_some() { FILES.saturating_add(1) } else { FILES }
}

fn volumes(spec: &Spec) -> Result<Vec<File>, Failure> {
    let access = |read_only| if read_only { Access::Read } else { Access::ReadWrite };
    let numbered = spec.volumes.iter().zip(first_volume(spec)..);
    numbered
        .map(|(disk, number)| file(number, "volume", disk.size, access(disk.read_only)))
        .collect()
}

/// The starter's own, behind all that spawn has sent.
fn host_paths(spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
    let volumes = RawFd::try_from(spec.volumes.len()).unwrap_or(RawFd::MAX);
    let first = first_volume(spec).saturating_add(volumes);
    let numbered = host_path::of_all(&spec.apps).zip(first..);
    numbered.map(|(_, number)| present(number, "path of the host")).collect()
}

/// All of a small file.
///
/// # Errors
/// `LAUNCH_DOCUMENT` when it is not small, or cannot be read.
pub fn bytes_of(file: &File, what: &str) -> Result<Vec<u8>, Failure> {
    let refuse = |text: std::fmt::Arguments<'_>| {
        failure(Reason::LaunchDocument, format_args!("{what} {text}"))
    };
    let unreadable = |error| refuse(format_args!("cannot be read: {error}"));
    let size = usize::try_from(file.metadata().map_err(unreadable)?.len()).unwrap_or(usize::MAX);
    if size > DOCUMENT_BYTES_MAX {
        return Err(refuse(format_args!("has {size} bytes, more than {DOCUMENT_BYTES_MAX}")));
    }
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    Ok(bytes)
}
