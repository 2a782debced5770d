//! The host's side of the way out: a pair of interfaces, and one table of rules that is ours alone. What is denied is
//! denied inside; without this table nothing comes back, so whoever empties the host's rules closes the way.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::programs::{ip, nft};
use super::rules::{HostFacts, OUT};
use super::state::Uplink;

/// Makes the way out what it is to be: in the host's network. `is_made` says that the pair of interfaces is there.
///
/// # Errors
/// A sentence about the step that failed.
pub fn open(uplink: &Uplink, is_made: bool) -> Result<HostFacts, String> {
    let name = &uplink.name;
    if !is_made {
        // The number of this process names the namespace that its first thread is in: the pods'.
        let pid = std::process::id();
        ip(&format!("link add {name} type veth peer name {OUT} netns {pid}\n"))?;
    }
    let (four, six) = uplink.ends(1);
    ip(&format!(
        "link set dev {name} up\naddr replace {four}/30 dev {name}\naddr replace {six}/64 dev {name} nodad\n"
    ))?;
    nft(&rules(uplink))?;
    Ok(facts())
}

/// What comes from pods reaches none of the host's own services, whatever its rules are, and comes in again only as an
/// answer. Accepting here permits nothing that another table of the host refuses.
fn rules(uplink: &Uplink) -> String {
    let name = &uplink.name;
    let (four, six) = uplink.ends(2);
    format!(
        r#"table inet casemate_{name}
delete table inet casemate_{name}
table inet casemate_{name} {{
chain input {{ type filter hook input priority -10; policy accept;
iifname "{name}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
iifname "{name}" drop
}}
chain forward {{ type filter hook forward priority -10; policy accept;
iifname "{name}" ip saddr != {four} drop
iifname "{name}" ip6 saddr != {six} drop
oifname "{name}" ct state != {{ established, related }} drop
}}
chain postrouting {{ type nat hook postrouting priority 100; policy accept;
ip saddr {four} oifname != "{name}" masquerade
ip6 saddr {six} oifname != "{name}" masquerade
}}
}}
"#
    )
}

/// What this thread's network has: the host's.
pub fn facts() -> HostFacts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let is_on = |path: &str| read(path).trim() == "1";
    let mut addresses = local_4(&read("/proc/thread-self/net/fib_trie"));
    addresses.extend(local_6(&read("/proc/thread-self/net/if_inet6")));
    addresses.sort_unstable();
    addresses.dedup();
    HostFacts {
        addresses,
        forwards: (
            is_on("/proc/sys/net/ipv4/ip_forward"),
            is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
        ),
    }
}

/// A line `|-- ADDRESS` and below it `/32 host LOCAL`; elsewhere the same address may be a broadcast's.
fn local_4(trie: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.map(IpAddr::V4));
        }
    }
    found
}

/// 32 digits at the beginning of each line.
fn local_6(lines: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let digits = line.split_whitespace().next()?;
        let bits = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(IpAddr::V6(Ipv6Addr::from(bits)))
    };
    lines.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_hosts_own_addresses_and_no_others() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
        assert_eq!(local_4(trie), ["10.0.0.5".parse::<IpAddr>().unwrap_or([0; 4].into())]);
        let lines = "00000000000000000000000000000001 01 80 10 80       lo\nshort 01\n";
        assert_eq!(local_6(lines), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }
}
