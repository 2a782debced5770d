//! What guest-init makes of a spec: the payload of a CONFIG frame (docs/formats.md section 7).

use crate::app::{self, App};
use crate::json::{self, Value};
use crate::network::Network;
use crate::shape::{self, fields_and_one};
use crate::spec::SpecError;
use crate::sysctls::{self, Sysctl};

/// Most bytes of it.
pub const CONFIG_BYTES_MAX: usize = 524_288;

/// Everything that is done inside a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What runs, in the order of the spec.
    pub apps: Vec<App>,
    /// Host name.
    pub hostname: String,
    /// Its network, if it has one.
    pub network: Option<Network>,
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
        let ([apps, hostname, sysctls], network) =
            fields_and_one(&value, "config", ["apps", "hostname", "sysctls"], "network")?;
        Ok(Self {
            apps: app::read_all(apps)?,
            hostname: shape::word(hostname, "hostname", 63, shape::is_hostname_character)?.into(),
            network: network.map(Network::read).transpose()?,
            sysctls: sysctls::read(sysctls)?,
        })
    }
}

/// Its bytes, of these members of a spec.
pub(crate) fn write([apps, hostname, sysctls]: [&Value; 3], network: Option<&Value>) -> String {
    let mut members = vec![
        ("apps".into(), apps.clone()),
        ("hostname".into(), hostname.clone()),
        ("sysctls".into(), sysctls.clone()),
    ];
    members.extend(network.map(|network| ("network".into(), network.clone())));
    json::write(&Value::object(members))
}
