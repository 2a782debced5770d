//! What guest-init makes of a spec: the payload of a CONFIG frame (docs/formats.md section 7).

use crate::app::{self, App};
use crate::json::{self, Value};
use crate::network::Network;
use crate::shape::{self, fields_and_one, integer32};
use crate::spec::SpecError;
use crate::sysctls::{self, Sysctl};

/// Most bytes of it.
pub const CONFIG_BYTES_MAX: usize = 524_288;

/// Times that may be given to stop, milliseconds.
pub(crate) const STOP_MS: std::ops::RangeInclusive<u32> = 0..=600_000;

/// Everything that is done inside a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What runs, in the order of the spec.
    pub apps: Vec<App>,
    /// Host name.
    pub hostname: String,
    /// Its network, if it has one.
    pub network: Option<Network>,
    /// How long apps may go on that are told to stop because another failed, milliseconds.
    pub stop_ms: u32,
    /// Parameters of the kernel that are the pod's own.
    pub sysctls: Vec<Sysctl>,
}

impl Config {
    /// Reads the canonical bytes.
    ///
    /// Seccomp programs are not hashed again: the VMM checked them in the spec, and guest-init must
    /// not run code that detects CPU features.
    ///
    /// # Errors
    /// Bytes that are not canonical, members that are missing, unknown or out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        let value = json::parse(bytes, CONFIG_BYTES_MAX)?;
        let ([apps, hostname, stop_ms, sysctls], network) = fields_and_one(
            &value,
            "config",
            ["apps", "hostname", "stop_ms", "sysctls"],
            "network",
        )?;
        Ok(Self {
            apps: app::read_all(apps)?,
            hostname: shape::word(hostname, "hostname", 63, shape::is_hostname_character)?.into(),
            network: network.map(Network::read).transpose()?,
            stop_ms: integer32(stop_ms, "stop_ms", STOP_MS)?,
            sysctls: sysctls::read(sysctls)?,
        })
    }
}

/// Its bytes, of these members of a spec.
pub(crate) fn write(
    [apps, hostname, limits, sysctls]: [&Value; 4],
    network: Option<&Value>,
) -> String {
    let mut members = vec![
        ("apps".into(), apps.clone()),
        ("hostname".into(), hostname.clone()),
        ("stop_ms".into(), limits.get("stop_ms").cloned().unwrap_or(Value::Null)),
        ("sysctls".into(), sysctls.clone()),
    ];
    members.extend(network.map(|network| ("network".into(), network.clone())));
    json::write(&Value::object(members))
}
