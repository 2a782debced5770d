//! Cards of containers: pairs of interfaces, of which one end is a port of the tenant's bridge, in the pods' network, and
//! the other one is in the container's own. A virtual machine's tap goes with its VMM; a pair goes with either end.

use std::fs;
use std::os::fd::OwnedFd;

use casemate_ticket::network::mac_text;

use super::programs::{DESCRIPTOR, ip, ip_with};
use super::state::{State, Way};

/// The card's name inside, as of a virtual machine's (native/guest-init/src/network.rs).
const CARD: &str = "eth0";
/// How names of ports that are ends of pairs begin.
pub const PAIR: &str = "cmv";

/// Removes pairs that are no pod's any more, and those of an earlier spawn's. The kernel does that as well when it comes
/// to clear the container's network away.
///
/// # Errors
/// A sentence about the one that stays.
pub fn remove_others(state: &State) -> Result<(), String> {
    let is_known = |name: &str| state.ways.iter().any(|way| way.port == name);
    names().iter().filter(|name| !is_known(name)).try_for_each(|name| remove(name))
}

/// Makes the pair of `way`, whose rules are in force: its card in `namespace`, by a descriptor, because the number of a
/// process could be another's by now.
///
/// # Errors
/// A sentence about the step that failed.
pub fn make(way: &Way, namespace: OwnedFd) -> Result<(), String> {
    let Way { bridge, port, network } = way;
    if names().contains(port) {
        // Of who had this name before, whose network the kernel has not cleared away yet.
        remove(port)?;
    }
    let (mtu, mac) = (network.mtu, mac_text(network.mac));
    ip_with(
        &format!(
            "link add name {port} mtu {mtu} type veth peer name {CARD} mtu {mtu} address {mac} netns {DESCRIPTOR}\n\
             link set dev {port} master {bridge}\nlink set dev {port} up\n"
        ),
        namespace,
    )
}

fn names() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let all = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    all.filter(|name| name.starts_with(PAIR)).map(str::to_owned).collect()
}

fn remove(name: &str) -> Result<(), String> {
    match ip(&format!("link del dev {name}\n")) {
        // The kernel was faster.
        Err(_) if !names().iter().any(|left| left == name) => Ok(()),
        removed => removed,
    }
}
