//! The launch document (docs/formats.md section 6): what spawn hands to the VMM, so that the VMM
//! can check the ticket again by itself.

use crate::json::{self, JsonError, Value};
use crate::note::LogKey;
use crate::shape::{self, ShapeError, boolean, fields, list, text, wrong};
use crate::spec::{KvmClass, Level, SPEC_BYTES_MAX, read_kvm, read_level};
use crate::ticket::RECORD_BYTES_MAX;
use thiserror::Error;

/// Most bytes of a launch document: spec, record and ticket as strings, each perhaps escaped.
pub const DOCUMENT_BYTES_MAX: usize = 2_097_152;
const LEVEL_TENANTS_MAX: usize = 4096;
const LOG_KEYS_MAX: usize = 16;

/// What a host knows of itself, and trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Host id.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Class of KVM; `None` when there is none to use.
    pub kvm: Option<KvmClass>,
    /// Whether root allowed software KVM.
    pub allow_software_kvm: bool,
    /// Tenants that may run below level vm, and at which levels. Root-owned; default empty.
    pub levels: Vec<(String, Vec<Level>)>,
    /// Keys of logs whose receipts are tickets.
    pub log_keys: Vec<LogKey>,
}

impl Context {
    /// Whether the level file lists `tenant` for `level`.
    #[must_use]
    pub fn is_listed(&self, tenant: &str, level: Level) -> bool {
        self.levels.iter().any(|(name, levels)| name == tenant && levels.contains(&level))
    }

    /// The context as the `context` member of a launch document.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let string = |text: &str| Value::String(text.into());
        let levels = self
            .levels
            .iter()
            .map(|(tenant, levels)| {
                let names = levels.iter().map(|level| string(level.as_str())).collect();
                (tenant.clone(), Value::Array(names))
            })
            .collect();
        let keys = self.log_keys.iter().map(|key| string(key.as_vkey())).collect();
        Value::object(vec![
            ("allow_software_kvm".into(), Value::Bool(self.allow_software_kvm)),
            ("boot_id".into(), string(&self.boot_id)),
            ("kvm".into(), self.kvm.map_or(Value::Null, |class| string(class.as_str()))),
            ("levels".into(), Value::object(levels)),
            ("log_keys".into(), Value::Array(keys)),
            ("node".into(), string(&self.node)),
        ])
    }

    /// Reads what [`Context::to_value`] writes.
    ///
    /// # Errors
    /// Members that are missing, unknown or out of bounds.
    pub fn read(value: &Value) -> Result<Self, ShapeError> {
        let [allow_software_kvm, boot_id, kvm, levels, log_keys, node] = fields(
            value,
            "context",
            ["allow_software_kvm", "boot_id", "kvm", "levels", "log_keys", "node"],
        )?;
        Ok(Self {
            node: shape::word(node, "node", 64, shape::is_node_character)?.into(),
            boot_id: shape::uuid(boot_id, "boot_id", None)?.into(),
            kvm: if *kvm == Value::Null { None } else { Some(read_kvm(kvm, "kvm")?) },
            allow_software_kvm: boolean(allow_software_kvm, "allow_software_kvm")?,
            levels: read_levels(levels)?,
            log_keys: read_log_keys(log_keys)?,
        })
    }
}

/// Reads a level file's `{"<tenant>":["container"]}`, also a member of spawn.json.
///
/// # Errors
/// No object, a tenant's name that is none, or a level that is none or needs no listing.
pub fn read_levels(value: &Value) -> Result<Vec<(String, Vec<Level>)>, ShapeError> {
    let Value::Object(members) = value else {
        return Err(wrong("levels", "must be an object"));
    };
    if members.len() > LEVEL_TENANTS_MAX {
        return Err(wrong("levels", "lists more than 4096 tenants"));
    }
    members
        .iter()
        .map(|(tenant, levels)| {
            let name = Value::String(tenant.clone());
            shape::word(&name, "levels", 63, shape::is_tenant_character)?;
            Ok((tenant.clone(), list(levels, "levels", 3, read_level)?))
        })
        .collect()
}

/// Reads `log_keys`, an array of vkeys, also a member of spawn.json.
///
/// # Errors
/// An item that is no vkey of an Ed25519 key.
pub fn read_log_keys(value: &Value) -> Result<Vec<LogKey>, ShapeError> {
    list(value, "log_keys", LOG_KEYS_MAX, |item, path| {
        item.as_str()
            .and_then(LogKey::parse)
            .ok_or_else(|| wrong(path, "must be the vkey of an Ed25519 log key"))
    })
}

/// What the VMM is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Run a tenant's pod: record, ticket and spec are checked.
    Launch,
    /// Boot kernel and init alone, take a snapshot, end.
    Template,
}

/// The document on descriptor 3 of the VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchDocument {
    /// What spawn knows of the host.
    pub context: Context,
    /// What to do.
    pub mode: Mode,
    /// Canonical bytes of the launch.intent; empty for a template.
    pub record: String,
    /// Canonical bytes of the spec or template spec.
    pub spec: String,
    /// The receipt; empty for a template.
    pub ticket: String,
}

/// Why bytes are no launch document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Not canonical JSON.
    #[error("the launch document is not canonical JSON: {0}")]
    Json(#[from] JsonError),
    /// A member missing, unknown or out of bounds.
    #[error("the launch document's member {0}")]
    Shape(#[from] ShapeError),
}

impl LaunchDocument {
    /// The canonical text.
    #[must_use]
    pub fn write(&self) -> String {
        let mode = match self.mode {
            Mode::Launch => "launch",
            Mode::Template => "template",
        };
        json::write(&Value::object(vec![
            ("context".into(), self.context.to_value()),
            ("mode".into(), Value::String(mode.into())),
            ("record".into(), Value::String(self.record.clone())),
            ("spec".into(), Value::String(self.spec.clone())),
            ("ticket".into(), Value::String(self.ticket.clone())),
        ]))
    }

    /// Reads the canonical bytes.
    ///
    /// # Errors
    /// Bytes that are not canonical, or members that are not as the format says.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value = json::parse(bytes, DOCUMENT_BYTES_MAX)?;
        let [context, mode, record, spec, ticket] =
            fields(&value, "document", ["context", "mode", "record", "spec", "ticket"])?;
        let document = Self {
            context: Context::read(context)?,
            mode: match mode.as_str() {
                Some("launch") => Mode::Launch,
                Some("template") => Mode::Template,
                _ => return Err(wrong("mode", "must be launch or template").into()),
            },
            record: text(record, "record", RECORD_BYTES_MAX)?.into(),
            spec: text(spec, "spec", SPEC_BYTES_MAX)?.into(),
            ticket: text(ticket, "ticket", crate::note::NOTE_BYTES_MAX)?.into(),
        };
        if document.mode == Mode::Template
            && !(document.record.is_empty() && document.ticket.is_empty())
        {
            return Err(wrong("mode", "template has no record and no ticket").into());
        }
        Ok(document)
    }
}
