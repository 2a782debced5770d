//! The rules inside the pods' network, as text for nft(8). They are rebuilt as a whole in one transaction, so that at no
//! moment some of them are missing, and hold whatever happens to the host's own: this is the side that denies.
//!
//! Everything is refused that no line permits. A frame is the pod's own or is dropped where it enters the bridge; that
//! is what a VMM which was taken over meets (the guard of `casemate_devices::Network` judged its guest's before).

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};
use std::net::{IpAddr, Ipv4Addr};

use casemate_ticket::network::mac_text;
use casemate_ticket::rates::Rate;
use casemate_ticket::ways::{Egress, Rule};

use super::state::{State, Way};

/// Our end of the way out.
pub const OUT: &str = "cmup";
/// Never reached, whatever rules say: this host, links (and so metadata services), groups, no address at all.
const NEVER_4: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4";
const NEVER_6: &str =
    "::/96, ::ffff:0:0/96, fe80::/10, fec0::/10, ff00::/8, fd00:ec2::/32, fd20:ce::/32";
/// Beyond those, what is not the internet: the IANA's registries of special addresses, and where Azure gives a host its
/// credentials.
const SPECIAL_4: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, \
     168.63.129.16, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24";
/// The internet is `2000::/3` without these: Teredo and others, documentation, 6to4, which has IPv4 inside.
const SPECIAL_6: &str = "2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20";
/// Connections of one pod at a time, and new ones in a second.
const CONNECTIONS_MAX: u32 = 2048;
const CONNECTIONS_PER_SECOND: u32 = 500;
/// Likewise those that its published ports bring it, of which each is short.
const BROUGHT_PER_SECOND: u32 = 2000;

/// The most in a second, and at once, that the kernel's arithmetic holds; more is no limit.
const RATE_MAX: u64 = 4_000_000_000;

/// What the host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// All that it answers to.
    pub addresses: Vec<IpAddr>,
    /// Whether it passes packets on, by version.
    pub forwards: (bool, bool),
}

/// The whole rule set.
pub fn inside(state: &State, host: &HostFacts) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut text, state, host);
    text
}

fn write_all(out: &mut String, state: &State, host: &HostFacts) -> fmt::Result {
    for family in ["bridge", "inet"] {
        writeln!(out, "table {family} casemate\ndelete table {family} casemate")?;
    }
    write_bridge(out, &state.ways)?;
    write_limits(out)?;
    writeln!(out, "table inet casemate {{")?;
    set(out, "never4", "type ipv4_addr; flags interval;", [NEVER_4])?;
    set(out, "never6", "type ipv6_addr; flags interval;", [NEVER_6])?;
    set(out, "special4", "type ipv4_addr; flags interval;", [SPECIAL_4])?;
    set(out, "special6", "type ipv6_addr; flags interval;", [SPECIAL_6])?;
    let own = |is_4: bool| host.addresses.iter().filter(move |ip| ip.is_ipv4() == is_4);
    set(out, "host4", "type ipv4_addr;", own(true))?;
    set(out, "host6", "type ipv6_addr;", own(false))?;
    for way in &state.ways {
        write_pod(out, way)?;
    }
    for (name, kind, is_4) in [("pods4", "ipv4_addr", true), ("pods6", "ipv6_addr", false)] {
        let pods = state.ways.iter().flat_map(|way| {
            let addresses = way.network.addresses.iter().filter(move |a| a.ip.is_ipv4() == is_4);
            addresses.map(|a| format!("\"{}\" . {} : jump of_{}", way.bridge, a.ip, way.port))
        });
        collection(out, "map", name, &format!("type ifname . {kind} : verdict;"), pods)?;
    }
    // Where br_netfilter is loaded, frames that stay on a bridge come by here too. What was sent to the gateway itself
    // for its own bridge does not: it would be an entry of the kernel's for each address that a pod makes up.
    let mut bridges: Vec<&str> = state.ways.iter().map(|way| way.bridge.as_str()).collect();
    bridges.sort_unstable();
    bridges.dedup();
    let gates = state.ways.iter().flat_map(|way| way.network.gateways.iter());
    let gates: BTreeSet<String> = gates
        .filter_map(|gateway| match gateway {
            IpAddr::V4(ip) => Some(gateway_mac(*ip)),
            IpAddr::V6(_) => None,
        })
        .collect();
    set(out, "gates", "type ether_addr;", gates)?;
    let pairs = bridges.iter().map(|bridge| format!("\"{bridge}\" . \"{bridge}\""));
    set(out, "bridges", "type ifname . ifname;", pairs)?;
    write_hooks(out, host)?;
    writeln!(out, "}}")
}

fn set<T: Display>(
    out: &mut String,
    name: &str,
    kind: &str,
    elements: impl IntoIterator<Item = T>,
) -> fmt::Result {
    collection(out, "set", name, kind, elements)
}

fn collection<T: Display>(
    out: &mut String,
    what: &str,
    name: &str,
    kind: &str,
    elements: impl IntoIterator<Item = T>,
) -> fmt::Result {
    let elements: Vec<String> = elements.into_iter().map(|one| one.to_string()).collect();
    write!(out, "{what} {name} {{ {kind} ")?;
    if !elements.is_empty() {
        write!(out, "elements = {{ {} }};", elements.join(", "))?;
    }
    writeln!(out, " }}")
}

/// Who may say what at its port: IPv4, IPv6 and ARP of the pod's own addresses; nothing that only a router or a DHCP
/// server says.
fn write_bridge(out: &mut String, ways: &[Way]) -> fmt::Result {
    writeln!(out, "table bridge casemate {{")?;
    let cards = ways.iter().map(|w| format!("\"{}\" . {}", w.port, mac_text(w.network.mac)));
    set(out, "cards", "type ifname . ether_addr;", cards)?;
    set(out, "taps", "type ifname;", ways.iter().map(|way| format!("\"{}\"", way.port)))?;
    for (name, kind, is_4) in [("own4", "ipv4_addr", true), ("own6", "ipv6_addr", false)] {
        let own = ways.iter().flat_map(|way| {
            let own = own_addresses(way).into_iter().filter(move |ip| ip.is_ipv4() == is_4);
            own.map(|ip| format!("\"{}\" . {ip}", way.port))
        });
        set(out, name, &format!("type ifname . {kind};"), own)?;
    }
    // A neighbour advertisement is of an own address: the 16 bytes behind its first 8.
    for way in ways {
        writeln!(out, "chain tells_{} {{", way.port)?;
        for ip in own_addresses(way) {
            if let IpAddr::V6(ip) = ip {
                writeln!(out, "@th,64,128 {:#x} return", u128::from(ip))?;
            }
        }
        writeln!(out, "drop\n}}")?;
    }
    let tells = ways.iter().map(|way| format!("\"{0}\" : jump tells_{0}", way.port));
    collection(out, "map", "tells", "type ifname : verdict;", tells)?;
    for way in ways {
        write_rate(out, "sends", &way.port, &way.network.rates.transmit)?;
        write_rate(out, "gets", &way.port, &way.network.rates.receive)?;
    }
    for name in ["sends", "gets"] {
        let ports = ways.iter().map(|way| format!("\"{0}\" : jump {name}_{0}", way.port));
        collection(out, "map", name, "type ifname : verdict;", ports)?;
    }
    out.write_str(
        r"chain six {
icmpv6 type { nd-router-advert, nd-redirect } drop
icmpv6 type nd-neighbor-advert iifname vmap @tells
udp sport 547 drop
iifname . ip6 saddr @own6 accept
ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
}
chain entry { type filter hook prerouting priority -300; policy drop;
iifname . ether saddr != @cards drop
iifname vmap @sends
ether type arp iifname . arp saddr ether != @cards drop
ether type arp arp htype 1 arp ptype ip arp operation { request, reply } iifname . arp saddr ip @own4 accept
ether type arp arp htype 1 arp ptype ip arp operation request arp saddr ip 0.0.0.0 accept
ether type ip udp sport 67 drop
ether type ip iifname . ip saddr @own4 accept
ether type ip6 jump six
}
chain exit { type filter hook postrouting priority 0; policy accept;
oifname @taps ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @cards drop
oifname vmap @gets
}
}
",
    )
}

/// What is beyond a card's rate is dropped. A VMM makes its guest wait before it comes to that with what it sends; this is
/// for containers, for a VMM that was taken over, and for what others send. Buckets are full again after a change of the
/// rules, so a start or an end of any pod gives each card its capacity once more.
fn write_rate(out: &mut String, name: &str, port: &str, rate: &Rate) -> fmt::Result {
    writeln!(out, "chain {name}_{port} {{")?;
    for (bucket, unit, burst_unit) in
        [(rate.bytes, "bytes", "bytes"), (rate.operations, "", "packets")]
    {
        let Some(bucket) = bucket.filter(|bucket| bucket.refill <= RATE_MAX) else { continue };
        let burst = bucket.capacity.saturating_add(bucket.burst).min(RATE_MAX);
        writeln!(
            out,
            "limit rate over {} {unit}/second burst {burst} {burst_unit} drop",
            bucket.refill
        )?;
    }
    writeln!(out, "}}")
}

/// The hardware address of the bridge with this gateway, which has one of version 4 (serve.rs).
pub fn gateway_mac(gateway: Ipv4Addr) -> String {
    let [a, b, c, d] = gateway.octets();
    mac_text([2, 0, a, b, c, d])
}

/// With the link-local address that belongs to its hardware address (RFC 4291, appendix A).
fn own_addresses(way: &Way) -> Vec<IpAddr> {
    let [m0, m1, m2, m3, m4, m5] = way.network.mac.map(u16::from);
    let pair = |high: u16, low: u16| high << 8 | low;
    let link = [0xfe80, 0, 0, 0, pair(m0 ^ 2, m1), pair(m2, 0xff), pair(0xfe, m3), pair(m4, m5)];
    let given = way.network.addresses.iter().map(|address| address.ip);
    given.chain([IpAddr::from(link)]).collect()
}

/// In a table of its own, whose counts outlive a change of the others. An entry is of an address, so one pod cannot use
/// up what the kernel has room for; nor can clients of its published ports, whose relays' connections are the pod's.
fn write_limits(out: &mut String) -> fmt::Result {
    writeln!(out, "table inet casemate_limits {{")?;
    for (version, kind) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        for prefix in ["", "to_"] {
            let name = |what: &str| format!("{prefix}{what}{version}");
            writeln!(out, "set {} {{ type {kind}; size 65535; flags dynamic; }}", name("held"))?;
            writeln!(
                out,
                "set {} {{ type {kind}; size 65535; flags dynamic, timeout; timeout 10s; }}",
                name("news")
            )?;
        }
    }
    for hook in ["forward", "output"] {
        writeln!(out, "chain {hook} {{ type filter hook {hook} priority -10; policy accept; }}")?;
    }
    writeln!(out, "}}")?;
    let out_only = format!("oifname \"{OUT}\" ");
    for (hook, prefix, pod, condition, rate) in [
        ("forward", "", "saddr", out_only.as_str(), CONNECTIONS_PER_SECOND),
        ("output", "to_", "daddr", "", BROUGHT_PER_SECOND),
    ] {
        writeln!(out, "flush chain inet casemate_limits {hook}")?;
        for (version, address) in [("4", "ip"), ("6", "ip6")] {
            let rule = format!("add rule inet casemate_limits {hook} {condition}ct state new");
            let of_pod = format!("{address} {pod}");
            writeln!(
                out,
                "{rule} update @{prefix}news{version} {{ {of_pod} limit rate over {rate}/second burst {} packets }} drop",
                rate.saturating_mul(2)
            )?;
            writeln!(
                out,
                "{rule} add @{prefix}held{version} {{ {of_pod} ct count over {CONNECTIONS_MAX} }} drop"
            )?;
        }
    }
    Ok(())
}

fn write_pod(out: &mut String, way: &Way) -> fmt::Result {
    writeln!(out, "chain of_{} {{", way.port)?;
    let Some(Egress { internet, rules }) = &way.network.egress else {
        return writeln!(out, "}}");
    };
    for rule in rules {
        writeln!(out, "{} accept", condition(rule))?;
    }
    if *internet {
        writeln!(out, "ip daddr != @special4 accept")?;
        writeln!(out, "ip6 daddr 2000::/3 ip6 daddr != @special6 accept")?;
    }
    writeln!(out, "}}")
}

fn condition(rule: &Rule) -> String {
    let (version, address) = if rule.cidr.ip.is_ipv4() { ("ipv4", "ip") } else { ("ipv6", "ip6") };
    let mut text = match rule.cidr.prefix {
        0 => format!("meta nfproto {version}"),
        _ => format!("{address} daddr {}", rule.cidr),
    };
    let _ = match (rule.protocol, rule.ports) {
        (None, _) => Ok(()),
        (Some(protocol), None) => write!(text, " meta l4proto {}", protocol.as_str()),
        (Some(protocol), Some((from, to))) => {
            write!(text, " {} dport {from}-{to}", protocol.as_str())
        }
    };
    text
}

fn write_hooks(out: &mut String, host: &HostFacts) -> fmt::Result {
    let refuse =
        "limit rate 1000/second burst 1000 packets reject with icmpx type admin-prohibited";
    writeln!(
        out,
        r#"chain input {{ type filter hook input priority 0; policy drop;
ct state established,related accept
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
iifname != "{OUT}" icmp type echo-request limit rate 1000/second burst 1000 packets accept
iifname != "{OUT}" icmpv6 type echo-request limit rate 1000/second burst 1000 packets accept
}}
chain forward {{ type filter hook forward priority 0; policy drop;
iifname . oifname @bridges ether daddr @gates drop
iifname . oifname @bridges accept
ct state invalid drop
iifname "{OUT}" ct direction reply ct state established accept
iifname "{OUT}" ct state related accept
iifname "{OUT}" drop
ip daddr @never4 jump refused
ip6 daddr @never6 jump refused
ip daddr @host4 jump refused
ip6 daddr @host6 jump refused
oifname != "{OUT}" jump refused"#
    )?;
    if !host.forwards.1 {
        writeln!(out, "meta nfproto ipv6 reject with icmpv6 type no-route")?;
    }
    writeln!(
        out,
        r#"iifname . ip saddr vmap @pods4
iifname . ip6 saddr vmap @pods6
jump refused
}}
chain refused {{
{refuse}
drop
}}
chain postrouting {{ type nat hook postrouting priority 100; policy accept;
oifname "{OUT}" masquerade
}}"#
    )
}
