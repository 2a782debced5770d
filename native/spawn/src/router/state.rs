//! What spawn tells its router: all ways that there are to be, each time. One canonical document.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use casemate_ticket::json::{self, Value};
use casemate_ticket::network::Network;
use casemate_ticket::shape::{ShapeError, constant, fields, list, word, wrong};
use casemate_ticket::ways::{Cidr, read_cidr};

use crate::answers::{object, string};

const VERSION: &str = "casemate.router/1";
/// As many as there can be pods.
const WAYS_MAX: usize = 1000;
/// 1000 pods with 64 rules each.
pub const STATE_BYTES_MAX: usize = 16 << 20;
/// `IFNAMSIZ` without its NUL.
const INTERFACE_BYTES_MAX: usize = 15;

/// The pair of interfaces between the pods' network and the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Four addresses; the host has the second, the pods' network the third.
    pub ipv4: Ipv4Addr,
    /// A network of 64 bits; the host has `::1` of it, the pods' network `::2`.
    pub ipv6: Ipv6Addr,
    /// The host's end.
    pub name: String,
}

/// One pod on its tenant's bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The tenant's.
    pub bridge: String,
    /// The pod's port of it: a tap, or the host's end of a pair.
    pub port: String,
    /// Who it is and what it reaches.
    pub network: Network,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `None`: root wants no way out.
    pub uplink: Option<Uplink>,
    /// Each port once.
    pub ways: Vec<Way>,
}

impl Uplink {
    /// Reads `null`, or the member `uplink` of spawn.json.
    ///
    /// # Errors
    /// What is not as docs/formats.md section 4 says.
    pub fn read(value: &Value) -> Result<Option<Self>, ShapeError> {
        if *value == Value::Null {
            return Ok(None);
        }
        let [ipv4, ipv6, name] = fields(value, "uplink", ["ipv4", "ipv6", "name"])?;
        let Cidr { ip: IpAddr::V4(ipv4), prefix: 30 } = read_cidr(ipv4, "uplink.ipv4")? else {
            return Err(wrong("uplink.ipv4", "must be an IPv4 network of 30 bits"));
        };
        let Cidr { ip: IpAddr::V6(ipv6), prefix: 64 } = read_cidr(ipv6, "uplink.ipv6")? else {
            return Err(wrong("uplink.ipv6", "must be an IPv6 network of 64 bits"));
        };
        Ok(Some(Self { ipv4, ipv6, name: interface(name, "uplink.name")? }))
    }

    fn to_value(&self) -> Value {
        object(vec![
            ("ipv4", string(&format!("{}/30", self.ipv4))),
            ("ipv6", string(&format!("{}/64", self.ipv6))),
            ("name", string(&self.name)),
        ])
    }

    /// Addresses of the end with this number.
    pub fn ends(&self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let four = u32::from(self.ipv4) | u32::from(number);
        let six = u128::from(self.ipv6) | u128::from(number);
        (four.into(), six.into())
    }
}

impl Way {
    /// Reads one, of a state or of what spawn writes down of a pod.
    ///
    /// # Errors
    /// What no `to_value` wrote.
    pub fn read(value: &Value, path: &str) -> Result<Self, ShapeError> {
        let [bridge, network, port] = fields(value, path, ["bridge", "network", "port"])?;
        Ok(Self {
            bridge: interface(bridge, path)?,
            port: interface(port, path)?,
            network: Network::read(network)?,
        })
    }

    /// What [`Way::read`] reads.
    pub fn to_value(&self) -> Value {
        object(vec![
            ("bridge", string(&self.bridge)),
            ("network", self.network.to_value()),
            ("port", string(&self.port)),
        ])
    }
}

impl State {
    /// Whether any pod has a way out.
    pub fn has_egress(&self) -> bool {
        self.ways.iter().any(|way| way.network.egress.is_some())
    }

    /// Its canonical text.
    pub fn write(&self) -> String {
        let ways = self.ways.iter().map(Way::to_value).collect();
        json::write(&object(vec![
            ("uplink", self.uplink.as_ref().map_or(Value::Null, Uplink::to_value)),
            ("v", string(VERSION)),
            ("ways", Value::Array(ways)),
        ]))
    }

    /// Reads what [`State::write`] wrote.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = json::parse(bytes, STATE_BYTES_MAX).map_err(|error| error.to_string())?;
        Self::read(&value).map_err(|error| error.to_string())
    }

    fn read(value: &Value) -> Result<Self, ShapeError> {
        let [uplink, version, ways] = fields(value, "state", ["uplink", "v", "ways"])?;
        constant(version, "v", VERSION)?;
        let ways = list(ways, "ways", WAYS_MAX, Way::read)?;
        if has_twice(ways.iter().map(|way| way.port.as_str())) {
            return Err(wrong("ways", "must have each port once"));
        }
        let addresses = |way: &Way| {
            let bridge = way.bridge.clone();
            way.network.addresses.clone().into_iter().map(move |own| (bridge.clone(), own.ip))
        };
        if has_twice(ways.iter().flat_map(addresses)) {
            return Err(wrong("ways", "have an address that is another pod's of the tenant"));
        }
        Ok(Self { uplink: Uplink::read(uplink)?, ways })
    }
}

fn has_twice<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.windows(2).any(|two| two.first() == two.last())
}

/// A name that means one interface in every language it is written in.
fn interface(value: &Value, path: &str) -> Result<String, ShapeError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = word(value, path, INTERFACE_BYTES_MAX, plain)?;
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong(path, "must begin with a letter"));
    }
    Ok(name.to_owned())
}
