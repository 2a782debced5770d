//! From the launch document to checked parts: the second wall.
//!
//! Spawn has checked all of this already. It is checked again here because spawn is one program and one bug: a VMM
//! started by hand, or by a spawn that was fooled, refuses just the same.

use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use casemate_devices::{Backend, Network, Scratch, Verified, Verity};
use casemate_ticket::document::{DOCUMENT_BYTES_MAX, LaunchDocument, Mode};
use casemate_ticket::exec;
use casemate_ticket::spec::{
    Limits, Machine, Means, Spec, Template, TemplateSpec, VerifiedDisk, Vm, Vmm, VolumeDisk,
};
use casemate_ticket::ticket::{Admitted, check};
use casemate_wire::control::Reason;
use rustix::fs::fstat;

use crate::clock_unsafe::boottime_ns;
use crate::descriptors::{
    Access, DOCUMENT, FILES, IMAGE, INIT, KERNEL, LOG, MEMORY, SCRATCH, STATE, STREAM, VOLUMES,
    check_blocks, check_digest, content, file, present, read_verified, sealed, tap,
};
use crate::failure::{Failure, failure};
use crate::gate::Gate;
use crate::machine::rate;

/// Where the machine starts from.
#[derive(Debug)]
pub enum Start {
    /// A kernel image, sealed and verified.
    Cold {
        /// The ELF file.
        kernel: File,
    },
    /// A template: state verified, memory sealed.
    Restore {
        /// The saved machine.
        state: Vec<u8>,
        /// Guest memory as data extents.
        memory: File,
    },
}

/// What only a tenant's pod has.
#[derive(Debug)]
pub struct Pod {
    /// The tenant's image, the pod's scratch disk and its volumes, until they are part of a machine.
    disks: Vec<Backend>,
    /// The pod's network, until it is part of a machine.
    network: Option<Network>,
    /// The pod's log and its size in bytes.
    pub log: (File, u64),
    /// CONFIG for guest-init, canonical JSON.
    pub guest_config: String,
    /// Content of the app's files.
    pub files: Vec<u8>,
    /// Of each app whether it has a health check.
    pub checked: Vec<bool>,
    /// The agent's stream. Taken before anything is opened: a number that was left empty would be filled by
    /// something of the VMM's own.
    pub stream: OwnedFd,
    /// Filter digests the spec names.
    pub vmm: Vmm,
    /// What lets processes in beside the app.
    pub gate: Gate,
}

impl Pod {
    /// The disks, for the machine: image, scratch, volumes. Once.
    pub fn take_disks(&mut self) -> Vec<Backend> {
        std::mem::take(&mut self.disks)
    }

    /// The network, if the pod has one, for the machine. Once.
    pub fn take_network(&mut self) -> Option<Network> {
        self.network.take()
    }
}

/// All parts of a VM, each checked against the spec.
#[derive(Debug)]
pub struct Parts {
    /// Processors, memory, command line.
    pub machine: Machine,
    /// Time and size limits.
    pub limits: Limits,
    /// Kernel or template.
    pub start: Start,
    /// The init disk.
    pub init: Verified,
    /// `None` when a template is built.
    pub pod: Option<Pod>,
}

/// Reads document and descriptors and checks everything.
///
/// # Errors
/// `LAUNCH_DOCUMENT`, `TICKET`, `MACHINE` or `DESCRIPTOR`, with a sentence.
pub fn gather() -> Result<Parts, Failure> {
    let document = read_document()?;
    match document.mode {
        Mode::Launch => gather_launch(&document),
        Mode::Template => gather_template(&document),
    }
}

/// The launch document, sealed.
///
/// # Errors
/// `LAUNCH_DOCUMENT` when it is none.
pub fn read_document() -> Result<LaunchDocument, Failure> {
    let refuse = |text: std::fmt::Arguments<'_>| failure(Reason::LaunchDocument, text);
    let document = File::from(present(DOCUMENT, "launch document")?);
    sealed(&document, "launch document")?;
    let size = fstat(&document)
        .map_err(|error| refuse(format_args!("cannot be examined: {error}")))?
        .st_size;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > DOCUMENT_BYTES_MAX {
        return Err(refuse(format_args!("has {size} bytes, more than {DOCUMENT_BYTES_MAX}")));
    }
    let mut bytes = vec![0; size];
    document
        .read_exact_at(&mut bytes, 0)
        .map_err(|error| refuse(format_args!("cannot be read: {error}")))?;
    LaunchDocument::parse(&bytes).map_err(|error| refuse(format_args!("{error}")))
}

/// Checks the document's ticket, as everybody before has: the last wall.
///
/// # Errors
/// `TICKET`, with the code and sentence of the rule that does not hold.
pub fn admit(document: &LaunchDocument) -> Result<Admitted, Failure> {
    let (record, spec) = (document.record.as_bytes(), document.spec.as_bytes());
    check(&document.ticket, record, spec, &document.context, boottime_ns())
        .map_err(|error| failure(Reason::Ticket, format_args!("{}: {error}", error.code())))
}

fn gather_launch(document: &LaunchDocument) -> Result<Parts, Failure> {
    let admitted = admit(document)?;
    let stream = present(STREAM, "pod stream")?;
    let Spec { means, limits, image, scratch, volumes, .. } = admitted.spec;
    let Means::Vm(vm) = means else {
        return Err(failure(Reason::Machine, format_args!("the spec is of no virtual machine")));
    };
    let Vm { machine, vmm, kernel, template, init, .. } = *vm;
    let start = match template {
        Some(template) => restore_from(&template)?,
        None => cold_from(kernel.size, kernel.digest)?,
    };
    let scratch_file = file(SCRATCH, "scratch", scratch.size, Access::ReadWrite)?;
    check_blocks(&scratch_file, "scratch", scratch.size, scratch.blocks)?;
    let scratch = Scratch::new(scratch_file, scratch.size)
        .map(|disk| disk.growing_to(scratch.size_max))
        .map_err(|error| failure(Reason::Descriptor, format_args!("scratch: {error}")))?;
    let mut disks =
        vec![Backend::Verified(verified(IMAGE, "image", &image)?), Backend::Scratch(scratch)];
    for (disk, number) in volumes.iter().zip(VOLUMES..) {
        disks.push(Backend::Scratch(volume(number, *disk)?));
    }
    let network = admitted.spec.network.as_ref().map(connect).transpose()?;
    let gate = Gate::new(
        document.context.clone(),
        exec::Pod { launch_id: admitted.spec.launch_id, tenant: admitted.spec.tenant },
    );
    let log = file(LOG, "log", admitted.spec.log_size, Access::ReadWrite)?;
    Ok(Parts {
        machine,
        limits,
        start,
        init: verified(INIT, "init", &init)?,
        pod: Some(Pod {
            disks,
            network,
            log: (log, admitted.spec.log_size),
            guest_config: admitted.spec.guest_config,
            files: content(FILES, admitted.spec.files.as_ref())?,
            checked: admitted.spec.apps.iter().map(|app| app.health.is_some()).collect(),
            stream,
            vmm,
            gate,
        }),
    })
}

/// What cannot be written is so by the descriptor: the guest's writes fail.
fn volume(number: RawFd, disk: VolumeDisk) -> Result<Scratch, Failure> {
    let access = if disk.read_only { Access::Read } else { Access::ReadWrite };
    Scratch::new(file(number, "volume", disk.size, access)?, disk.size)
        .map_err(|error| failure(Reason::Descriptor, format_args!("volume: {error}")))
}

fn gather_template(document: &LaunchDocument) -> Result<Parts, Failure> {
    let spec = TemplateSpec::parse(document.spec.as_bytes())
        .map_err(|error| failure(Reason::Machine, format_args!("{error}")))?;
    Ok(Parts {
        start: cold_from(spec.kernel.size, spec.kernel.digest)?,
        init: verified(INIT, "init", &spec.init)?,
        machine: spec.machine,
        limits: spec.limits,
        pod: None,
    })
}

fn connect(network: &casemate_ticket::network::Network) -> Result<Network, Failure> {
    Ok(Network {
        tap: tap()?,
        mac: network.mac,
        addresses: network.addresses.iter().map(|address| address.ip).collect(),
        mtu: network.mtu,
        receive: rate(&network.rates.receive),
        transmit: rate(&network.rates.transmit),
    })
}

fn cold_from(size: u64, digest: casemate_ticket::bytes::Digest) -> Result<Start, Failure> {
    let image = file(KERNEL, "kernel", size, Access::Read)?;
    sealed(&image, "kernel")?;
    check_digest(&image, "kernel", digest)?;
    Ok(Start::Cold { kernel: image })
}

/// The memory is not hashed again for each launch: spawn hashed it when it was sealed, and a sealed memfd cannot
/// change. The state is small and hostile to parse, so it is hashed here as well.
fn restore_from(template: &Template) -> Result<Start, Failure> {
    let state = file(STATE, "template state", template.state.size, Access::Read)?;
    sealed(&state, "template state")?;
    let memory = file(MEMORY, "template memory", template.memory.size, Access::Read)?;
    sealed(&memory, "template memory")?;
    Ok(Start::Restore {
        state: read_verified(&state, "template state", template.state.size, template.state.digest)?,
        memory,
    })
}

fn verified(number: i32, role: &str, disk: &VerifiedDisk) -> Result<Verified, Failure> {
    let image = file(number, role, disk.size, Access::Read)?;
    let verity = Verity { data_blocks: disk.data_blocks, root: disk.root, salt: disk.salt.clone() };
    Verified::new(image, disk.size, verity)
        .map_err(|error| failure(Reason::Descriptor, format_args!("{role}: {error}")))
}
