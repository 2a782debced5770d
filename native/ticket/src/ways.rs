//! The ways of a pod's network (docs/formats.md section 2): what may be reached from it, and by which names.

use std::fmt;
use std::net::IpAddr;

use crate::json::Value;
use crate::shape::{
    ShapeError, boolean, fields, integer, is_hostname_character, list, text, wrong,
};

/// Rules of one pod.
const RULES_MAX: usize = 64;
/// What the C library reads of nameservers (`MAXNS`), and of domains to search (`MAXDNSRCH`).
const NAMESERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
const OPTIONS_MAX: usize = 8;
const HOSTS_MAX: usize = 32;
/// Bytes of a name (RFC 1035, section 2.3.4, without the dot at its end).
const NAME_BYTES_MAX: usize = 253;

/// What has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Reads `tcp` or `udp`.
    ///
    /// # Errors
    /// Anything else.
    pub fn read(value: &Value, path: &str) -> Result<Self, ShapeError> {
        match value.as_str() {
            Some("tcp") => Ok(Self::Tcp),
            Some("udp") => Ok(Self::Udp),
            _ => Err(wrong(path, "must be tcp or udp")),
        }
    }
}

/// A network: an address whose bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub ip: IpAddr,
    /// Bits that all its addresses share; 0 for every address.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.ip, self.prefix)
    }
}

/// One network that may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where to.
    pub cidr: Cidr,
    /// By what; `None`: by anything.
    pub protocol: Option<Protocol>,
    /// First and last port; `None`: all.
    pub ports: Option<(u16, u16)>,
}

/// What may be reached from a pod, beside its tenant's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Every address that is reached over the internet; none that is special or private.
    pub internet: bool,
    /// And these.
    pub rules: Vec<Rule>,
}

/// What the guest's resolver is told. Nothing at all: the image's files stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Lines of the hosts file beside those of the pod itself.
    pub hosts: Vec<(IpAddr, String)>,
    /// Who is asked, in this order.
    pub nameservers: Vec<IpAddr>,
    /// Words of the line `options`.
    pub options: Vec<String>,
    /// Domains that are tried.
    pub search: Vec<String>,
}

impl Egress {
    pub(crate) fn read(value: &Value) -> Result<Option<Self>, ShapeError> {
        if *value == Value::Null {
            return Ok(None);
        }
        let [internet, rules] = fields(value, "network.egress", ["internet", "rules"])?;
        let internet = boolean(internet, "network.egress.internet")?;
        let rules = list(rules, "network.egress.rules", RULES_MAX, read_rule)?;
        if !internet && rules.is_empty() {
            return Err(wrong("network.egress", "reaches nothing, which is null"));
        }
        Ok(Some(Self { internet, rules }))
    }

    pub(crate) fn to_value(&self) -> Value {
        let rule = |rule: &Rule| {
            let ports = rule.ports.map_or(Value::Null, |(from, to)| {
                object(vec![("from", integer_of(from)), ("to", integer_of(to))])
            });
            let protocol = rule.protocol.map_or(Value::Null, |protocol| string(protocol.as_str()));
            let cidr = string(&rule.cidr);
            object(vec![("cidr", cidr), ("ports", ports), ("protocol", protocol)])
        };
        let rules = Value::Array(self.rules.iter().map(rule).collect());
        object(vec![("internet", Value::Bool(self.internet)), ("rules", rules)])
    }
}

impl Names {
    pub(crate) fn read(value: &Value) -> Result<Self, ShapeError> {
        let [hosts, nameservers, options, search] =
            fields(value, "network.names", ["hosts", "nameservers", "options", "search"])?;
        let host = |item, path: &str| {
            let [address, name] = fields(item, path, ["address", "name"])?;
            Ok((read_ip(address, path)?, read_name(name, path)?))
        };
        Ok(Self {
            hosts: list(hosts, "network.names.hosts", HOSTS_MAX, host)?,
            nameservers: list(nameservers, "network.names.nameservers", NAMESERVERS_MAX, read_ip)?,
            options: list(options, "network.names.options", OPTIONS_MAX, read_option)?,
            search: list(search, "network.names.search", SEARCH_MAX, read_name)?,
        })
    }

    pub(crate) fn to_value(&self) -> Value {
        let strings = |all: &[String]| Value::Array(all.iter().map(string).collect());
        let host = |(address, name): &(IpAddr, String)| {
            object(vec![("address", string(address)), ("name", string(name))])
        };
        object(vec![
            ("hosts", Value::Array(self.hosts.iter().map(host).collect())),
            ("nameservers", Value::Array(self.nameservers.iter().map(string).collect())),
            ("options", strings(&self.options)),
            ("search", strings(&self.search)),
        ])
    }
}

fn read_rule(value: &Value, path: &str) -> Result<Rule, ShapeError> {
    let [cidr, ports, protocol] = fields(value, path, ["cidr", "ports", "protocol"])?;
    let protocol = match protocol {
        Value::Null => None,
        named => Some(Protocol::read(named, path)?),
    };
    let ports = match ports {
        Value::Null => None,
        range => Some(read_ports(range, path)?),
    };
    if ports.is_some() && protocol.is_none() {
        return Err(wrong(path, "has ports of no protocol"));
    }
    Ok(Rule { cidr: read_cidr(cidr, path)?, protocol, ports })
}

fn read_ports(value: &Value, path: &str) -> Result<(u16, u16), ShapeError> {
    let [from, to] = fields(value, path, ["from", "to"])?;
    let port = |value| {
        let number = integer(value, path, 1..=65_535)?;
        u16::try_from(number).map_err(|_| wrong(path, "must fit 16 bits"))
    };
    match (port(from)?, port(to)?) {
        (from, to) if from <= to => Ok((from, to)),
        _ => Err(wrong(path, "ends before it begins")),
    }
}

/// `address/prefix` in the one way that both are written (RFC 5952), and nothing behind the prefix.
///
/// # Errors
/// Anything else.
pub fn read_cidr(value: &Value, path: &str) -> Result<Cidr, ShapeError> {
    let written = text(value, path, 64)?;
    let parts = written.split_once('/');
    let cidr = parts
        .and_then(|(ip, prefix)| Some(Cidr { ip: ip.parse().ok()?, prefix: prefix.parse().ok()? }));
    match cidr {
        Some(cidr) if cidr.to_string() == written && is_network(&cidr) => Ok(cidr),
        _ => {
            Err(wrong(path, "must be a network in canonical form, without bits behind its prefix"))
        }
    }
}

fn is_network(cidr: &Cidr) -> bool {
    let prefix = u32::from(cidr.prefix);
    match cidr.ip {
        IpAddr::V4(ip) => {
            prefix <= 32 && u32::MAX.checked_shr(prefix).unwrap_or(0) & u32::from(ip) == 0
        }
        IpAddr::V6(ip) => {
            let mapped = ip.to_ipv4_mapped().is_some();
            let behind = u128::MAX.checked_shr(prefix).unwrap_or(0);
            prefix <= 128 && behind & u128::from(ip) == 0 && !mapped
        }
    }
}

/// An address as the Rust library writes it.
pub(crate) fn read_ip(value: &Value, path: &str) -> Result<IpAddr, ShapeError> {
    let written = text(value, path, 64)?;
    let parsed: Option<IpAddr> = written.parse().ok();
    parsed
        .filter(|ip| ip.to_string() == written)
        .ok_or_else(|| wrong(path, "must be an address in canonical form"))
}

/// Labels of letters, digits, hyphens and underscores, without a dot at the end.
fn read_name(value: &Value, path: &str) -> Result<String, ShapeError> {
    let name = text(value, path, NAME_BYTES_MAX)?;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| is_hostname_character(c) || c == '_' || c.is_ascii_uppercase())
    };
    if name.split('.').all(is_label) {
        Ok(name.to_owned())
    } else {
        Err(wrong(path, "must be a name of labels of 63 letters, digits, - and _ at most"))
    }
}

/// One word, as `ndots:2`.
fn read_option(value: &Value, path: &str) -> Result<String, ShapeError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
    crate::shape::word(value, path, 64, is_allowed).map(str::to_owned)
}

fn string(text: &(impl ToString + ?Sized)) -> Value {
    Value::String(text.to_string())
}

fn integer_of(number: u16) -> Value {
    Value::Integer(number.into())
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#[path = "ways_tests.rs"]
mod tests;
