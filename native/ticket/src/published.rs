//! A port of the host that leads to a pod (docs/formats.md section 2).

use std::net::IpAddr;

use crate::json::Value;
use crate::shape::{ShapeError, fields, integer, list, wrong};
use crate::ways::{Protocol, read_ip};

/// Of one pod.
const PORTS_MAX: usize = 32;

/// One port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The host's address; the unspecified one is all of its version, and TCP's alone: what answers a datagram has to say
    /// which address was asked.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
    /// The pod's.
    pub pod: u16,
    /// Of both.
    pub protocol: Protocol,
}

impl Published {
    fn read(value: &Value, path: &str) -> Result<Self, ShapeError> {
        let [address, host, pod, protocol] =
            fields(value, path, ["address", "host", "pod", "protocol"])?;
        let (address, protocol) = (read_ip(address, path)?, Protocol::read(protocol, path)?);
        if protocol == Protocol::Udp && address.is_unspecified() {
            return Err(wrong(path, "must name one address of the host for UDP"));
        }
        let port = |value| {
            let number = integer(value, path, 1..=65_535)?;
            u16::try_from(number).map_err(|_| wrong(path, "must fit 16 bits"))
        };
        Ok(Self { address, host: port(host)?, pod: port(pod)?, protocol })
    }

    pub(crate) fn to_value(self) -> Value {
        Value::object(vec![
            ("address".into(), Value::String(self.address.to_string())),
            ("host".into(), Value::Integer(self.host.into())),
            ("pod".into(), Value::Integer(self.pod.into())),
            ("protocol".into(), Value::String(self.protocol.as_str().into())),
        ])
    }
}

/// Each address and port of the host once.
pub(crate) fn read_ports(value: &Value) -> Result<Vec<Published>, ShapeError> {
    let ports = list(value, "network.ports", PORTS_MAX, Published::read)?;
    let place = |port: &Published| (port.address, port.host, port.protocol);
    let twice = |at: usize, one| ports.iter().skip(at).skip(1).any(|other| place(other) == one);
    if ports.iter().enumerate().any(|(at, one)| twice(at, place(one))) {
        return Err(wrong("network.ports", "must have each port of the host once"));
    }
    Ok(ports)
}
