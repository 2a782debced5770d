//! The check of a launch ticket: docs/formats.md section 3, in its order. What any ticket needs is here
//! too, for exec.rs.

use crate::bytes::Digest;
use crate::document::Context;
use crate::json::{self, JsonError, Value};
use crate::note::{NoteError, open_checkpoint};
use crate::proof::{self, is_included, leaf_hash};
use crate::shape::is_node_character;
use crate::spec::{KvmClass, Level, Spec, SpecError};
use thiserror::Error;

/// Most bytes of a record: the limit of a C2SP entry bundle.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// How far ahead a deadline may lie, nanoseconds. Bounds how long a spent ticket is remembered.
pub const DEADLINE_AHEAD_NS_MAX: u64 = 30_000_000_000;

/// What a good ticket admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The spec, parsed and bounded.
    pub spec: Spec,
    /// Leaf hash of the record: the name under which the ticket is spent.
    pub leaf_hash: [u8; 32],
    /// `CLOCK_BOOTTIME` after which the ticket is worth nothing, nanoseconds.
    pub deadline_ns: u64,
}

/// Why a ticket was refused. [`TicketError::code`] is the contract, the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TicketError {
    /// No ticket or no record.
    #[error("there is no ticket: nothing starts without the receipt of its launch record")]
    Missing,
    /// No tlog-proof, or its checkpoint is no signed note.
    #[error("the ticket is not a tlog-proof with a signed checkpoint")]
    Malformed,
    /// No signature by a key of the trust file for the checkpoint's origin.
    #[error("the ticket's checkpoint is not signed by a log key of this host's trust file")]
    KeyUnknown,
    /// A signature by a trusted key does not verify.
    #[error("the signature on the ticket's checkpoint does not verify")]
    Signature,
    /// The record is not in the tree.
    #[error("the record is not in the log at the ticket's index")]
    NotIncluded,
    /// The record is not canonical JSON.
    #[error("the record is not canonical JSON: {0}")]
    RecordJson(#[source] JsonError),
    /// The record lacks a member, or is of another type or version.
    #[error("the record is no intent of casemate.audit/1 for this: member {0} is missing or wrong")]
    Record(&'static str),
    /// Recorded for another host.
    #[error("the record is for host {record:?}, this is {host:?}")]
    Host {
        /// The record's host.
        record: String,
        /// This host.
        host: String,
    },
    /// Recorded in another boot.
    #[error("the record was made in another boot of this host")]
    Boot,
    /// The deadline has passed.
    #[error("the ticket's deadline passed {late_ns} ns ago")]
    Expired {
        /// By how much.
        late_ns: u64,
    },
    /// The deadline lies too far ahead.
    #[error("the ticket's deadline lies more than 30 s ahead")]
    TooFar,
    /// The record is of another spec.
    #[error("the spec is not the one that was recorded")]
    SpecDigest,
    /// The spec does not parse.
    #[error("{0}")]
    SpecMalformed(#[source] SpecError),
    /// Spec and record disagree.
    #[error("the spec's {0} is not the record's")]
    SpecMismatch(&'static str),
    /// The record is of another pod.
    #[error("the record's {0} is not this pod's")]
    OtherPod(&'static str),
    /// The record is of another request.
    #[error("the request is not the one that was recorded")]
    RequestDigest,
    /// A level below vm for a tenant that the level file does not list.
    #[error("tenant {tenant:?} is not listed for level {level} in this host's level file")]
    LevelNotListed {
        /// The tenant.
        tenant: String,
        /// The level.
        level: &'static str,
    },
    /// Recorded for another class of KVM than the host has.
    #[error("the launch is for {0} KVM, which is not what this host has")]
    KvmClass(&'static str),
    /// Software KVM is not allowed here.
    #[error("software KVM is no security boundary and allow_software_kvm is not set")]
    SoftwareKvm,
}

impl TicketError {
    /// The code of this name, if there is one.
    #[must_use]
    pub fn code_named(name: &str) -> Option<&'static str> {
        CODES.into_iter().find(|code| *code == name)
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "TICKET_MISSING",
            Self::Malformed => "TICKET_MALFORMED",
            Self::KeyUnknown => "TICKET_KEY_UNKNOWN",
            Self::Signature => "TICKET_SIGNATURE",
            Self::NotIncluded => "TICKET_NOT_INCLUDED",
            Self::RecordJson(_) | Self::Record(_) => "TICKET_RECORD",
            Self::Host { .. } => "TICKET_HOST",
            Self::Boot => "TICKET_BOOT",
            Self::Expired { .. } => "TICKET_EXPIRED",
            Self::TooFar => "TICKET_TOO_FAR",
            Self::SpecDigest => "TICKET_SPEC_DIGEST",
            Self::SpecMalformed(_) => "SPEC_MALFORMED",
            Self::SpecMismatch(_) => "SPEC_MISMATCH",
            Self::OtherPod(_) => "TICKET_POD",
            Self::RequestDigest => "TICKET_REQUEST_DIGEST",
            Self::LevelNotListed { .. } => "LEVEL_NOT_LISTED",
            Self::KvmClass(_) => "KVM_CLASS",
            Self::SoftwareKvm => "SOFTWARE_KVM_NOT_ALLOWED",
        }
    }
}

/// Every code there is, for who hears one from another process.
const CODES: [&str; 16] = [
    "TICKET_MISSING",
    "TICKET_MALFORMED",
    "TICKET_KEY_UNKNOWN",
    "TICKET_SIGNATURE",
    "TICKET_NOT_INCLUDED",
    "TICKET_RECORD",
    "TICKET_HOST",
    "TICKET_BOOT",
    "TICKET_EXPIRED",
    "TICKET_TOO_FAR",
    "TICKET_SPEC_DIGEST",
    "SPEC_MALFORMED",
    "SPEC_MISMATCH",
    "LEVEL_NOT_LISTED",
    "KVM_CLASS",
    "SOFTWARE_KVM_NOT_ALLOWED",
];

/// Checks a ticket against its record, the spec and this host.
///
/// `now_boottime_ns` is `CLOCK_BOOTTIME`: the wall clock can be set back, this one cannot.
///
/// # Errors
/// The first rule of docs/formats.md section 3 that does not hold.
pub fn check(
    ticket: &str,
    record: &[u8],
    spec: &[u8],
    context: &Context,
    now_boottime_ns: u64,
) -> Result<Admitted, TicketError> {
    let leaf_hash = check_inclusion(ticket, record, context)?;
    let intent = Intent::parse(record)?;
    let deadline_ns = intent.head.check_place_and_time(context, now_boottime_ns)?;
    let spec = check_spec(&intent, spec)?;
    check_level(&spec, context)?;
    Ok(Admitted { spec, leaf_hash, deadline_ns })
}

pub(crate) fn check_inclusion(
    ticket: &str,
    record: &[u8],
    context: &Context,
) -> Result<[u8; 32], TicketError> {
    if ticket.is_empty() || record.is_empty() {
        return Err(TicketError::Missing);
    }
    let proof = proof::parse(ticket).ok_or(TicketError::Malformed)?;
    let checkpoint =
        open_checkpoint(proof.checkpoint, &context.log_keys).map_err(|error| match error {
            NoteError::Malformed => TicketError::Malformed,
            NoteError::KeyUnknown => TicketError::KeyUnknown,
            NoteError::Signature => TicketError::Signature,
        })?;
    let leaf = leaf_hash(record);
    if is_included(&proof, leaf, checkpoint.size, &checkpoint.root) {
        Ok(leaf)
    } else {
        Err(TicketError::NotIncluded)
    }
}

/// What every intent has: who is meant, where, and until when.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) tenant: String,
    node: String,
    boot_id: String,
    deadline_ns: u64,
}

impl Head {
    pub(crate) fn read(value: &Value, kind: &str) -> Result<Self, TicketError> {
        if string(value, &["v"], "v")? != "casemate.audit/1" {
            return Err(TicketError::Record("v"));
        }
        if string(value, &["type"], "type")? != kind {
            return Err(TicketError::Record("type"));
        }
        let deadline = string(value, &["deadline", "boottime_ns"], "deadline.boottime_ns")?;
        Ok(Self {
            tenant: string(value, &["tenant"], "tenant")?.into(),
            node: string(value, &["node", "id"], "node.id")?.into(),
            boot_id: string(value, &["clock", "boot_id"], "clock.boot_id")?.into(),
            deadline_ns: crate::note::parse_decimal(deadline)
                .ok_or(TicketError::Record("deadline.boottime_ns"))?,
        })
    }

    /// Answers the deadline.
    pub(crate) fn check_place_and_time(
        &self,
        context: &Context,
        now_ns: u64,
    ) -> Result<u64, TicketError> {
        if self.node != context.node {
            let record = self.node.chars().filter(|c| is_node_character(*c)).take(64).collect();
            return Err(TicketError::Host { record, host: context.node.clone() });
        }
        if self.boot_id != context.boot_id {
            return Err(TicketError::Boot);
        }
        if self.deadline_ns < now_ns {
            return Err(TicketError::Expired { late_ns: now_ns.saturating_sub(self.deadline_ns) });
        }
        if self.deadline_ns > now_ns.saturating_add(DEADLINE_AHEAD_NS_MAX) {
            return Err(TicketError::TooFar);
        }
        Ok(self.deadline_ns)
    }
}

/// A record, as canonical JSON.
pub(crate) fn read_record(record: &[u8]) -> Result<Value, TicketError> {
    json::parse(record, RECORD_BYTES_MAX).map_err(TicketError::RecordJson)
}

/// The members of a launch.intent that decide; the others are for people.
#[derive(Debug)]
struct Intent {
    head: Head,
    launch_id: String,
    level: Level,
    /// None below level vm.
    kvm: Option<KvmClass>,
    spec_digest: Digest,
    spec_size: u64,
}

impl Intent {
    fn parse(record: &[u8]) -> Result<Self, TicketError> {
        let value = read_record(record)?;
        let head = Head::read(&value, "launch.intent")?;
        let level = string(&value, &["isolation", "level"], "isolation.level")?;
        let kvm = match member(&value, &["isolation", "kvm"]) {
            Some(Value::Null) => Some(None),
            kvm => kvm.and_then(Value::as_str).and_then(KvmClass::parse).map(Some),
        };
        let digest = string(&value, &["spec", "digest"], "spec.digest")?;
        let level = Level::parse(level).ok_or(TicketError::Record("isolation.level"))?;
        // A virtual machine has a class of KVM, and nothing else has.
        let kvm = kvm.filter(|kvm| kvm.is_some() == (level == Level::Vm));
        let size = member(&value, &["spec", "size"]).and_then(Value::as_u64);
        Ok(Self {
            head,
            launch_id: string(&value, &["launch_id"], "launch_id")?.into(),
            level,
            kvm: kvm.ok_or(TicketError::Record("isolation.kvm"))?,
            spec_digest: Digest::parse(digest).ok_or(TicketError::Record("spec.digest"))?,
            spec_size: size.ok_or(TicketError::Record("spec.size"))?,
        })
    }
}

pub(crate) fn member<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

pub(crate) fn string<'a>(
    value: &'a Value,
    path: &[&str],
    name: &'static str,
) -> Result<&'a str, TicketError> {
    member(value, path).and_then(Value::as_str).ok_or(TicketError::Record(name))
}

fn check_spec(intent: &Intent, bytes: &[u8]) -> Result<Spec, TicketError> {
    if Digest::of(bytes) != intent.spec_digest || u64::try_from(bytes.len()) != Ok(intent.spec_size)
    {
        return Err(TicketError::SpecDigest);
    }
    let spec = Spec::parse(bytes).map_err(TicketError::SpecMalformed)?;
    let disagreement = [
        ("launch_id", spec.launch_id == intent.launch_id),
        ("tenant", spec.tenant == intent.head.tenant),
        ("level", spec.level == intent.level),
        ("kvm", spec.kvm() == intent.kvm),
        ("node", spec.node == intent.head.node),
    ]
    .into_iter()
    .find(|(_, equal)| !equal);
    match disagreement {
        Some((name, _)) => Err(TicketError::SpecMismatch(name)),
        None => Ok(spec),
    }
}

fn check_level(spec: &Spec, context: &Context) -> Result<(), TicketError> {
    if spec.level != Level::Vm && !context.is_listed(&spec.tenant, spec.level) {
        return Err(TicketError::LevelNotListed {
            tenant: spec.tenant.clone(),
            level: spec.level.as_str(),
        });
    }
    let Some(kvm) = spec.kvm() else { return Ok(()) };
    if context.kvm != Some(kvm) {
        return Err(TicketError::KvmClass(kvm.as_str()));
    }
    if kvm == KvmClass::Software && !context.allow_software_kvm {
        return Err(TicketError::SoftwareKvm);
    }
    Ok(())
}
