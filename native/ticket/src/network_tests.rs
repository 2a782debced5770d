use super::Network;
use crate::json;

const MAC: &str = "02:0a:58:00:00:02";

fn read(addresses: &[&str], mac: &str, mtu: u64) -> Option<Network> {
    let list: Vec<String> = addresses.iter().map(|text| format!("{text:?}")).collect();
    let list = list.join(",");
    with_gateways(&list, "", mac, mtu)
}

/// Addresses and gateways as they stand in a list of JSON.
fn with_gateways(addresses: &str, gateways: &str, mac: &str, mtu: u64) -> Option<Network> {
    let names = r#"{"hosts":[],"nameservers":[],"options":[],"search":[]}"#;
    let text = format!(
        r#"{{"addresses":[{addresses}],"egress":null,"gateways":[{gateways}],"mac":"{mac}","mtu":{mtu},"names":{names},"ports":[],"rates":{{"receive":null,"transmit":null}}}}"#
    );
    let network = Network::read(&json::parse(text.as_bytes(), 4096).unwrap()).ok()?;
    assert_eq!(json::write(&network.to_value()), text);
    Some(network)
}

#[test]
fn gateways_are_others_on_the_cards_networks() {
    let addresses = r#""10.88.0.2/24","fd58::2/64""#;
    let read = |gateways| with_gateways(addresses, gateways, MAC, 1500);
    let both = read(r#""10.88.0.1","fd58::1""#).unwrap();
    assert_eq!(both.prefix_of(*both.gateways.last().unwrap()), Some(64));
    for bad in [
        r#""10.88.1.1""#,
        r#""10.88.0.2""#,
        r#""10.88.0.0""#,
        r#""10.88.0.255""#,
        r#""10.88.0.1","10.88.0.3""#,
        r#""fd59::1""#,
        r#""fe80::1""#,
        r#""10.88.0.1","fd58::1","fd58::3""#,
        r#""010.88.0.1""#,
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn reads_addresses_of_both_versions() {
    let network = read(&["10.88.0.2/24", "fd58:1:2:3::2/64"], MAC, 1500).unwrap();
    assert_eq!(network.mac, [2, 10, 88, 0, 0, 2]);
    assert_eq!(network.mtu, 1500);
    let texts: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.88.0.2/24", "fd58:1:2:3::2/64"]);
    // Two stations need no address of the network's own.
    assert!(read(&["10.0.0.0/31"], MAC, 1280).is_some());
    assert!(read(&["10.0.0.0/32"], MAC, 1280).is_some());
}

#[test]
fn refuses_addresses_that_no_host_has_and_other_spellings() {
    for address in [
        "10.88.0.0/24",
        "10.88.0.255/24",
        "10.88.0.2/0",
        "10.88.0.2/33",
        "10.88.0.2",
        "10.88.0.2/024",
        "10.88.0.2/+24",
        "10.88.0.02/24",
        "0.1.2.3/8",
        "127.0.0.1/8",
        "169.254.169.254/16",
        "224.0.0.1/4",
        "255.255.255.255/32",
        "::1/128",
        "::/128",
        "fe80::1/64",
        "ff02::1/64",
        "::ffff:10.88.0.2/96",
        "fd58:1:2:3::2/129",
        "fd58:1:2:3::2/0",
        "FD58:1:2:3::2/64",
        "fd58:1:2:3:0:0:0:2/64",
        "fd58:1:2:3::2%eth0/64",
        "",
        "/",
    ] {
        assert_eq!(read(&[address], MAC, 1500), None, "{address}");
    }
    assert_eq!(read(&[], MAC, 1500), None);
    assert_eq!(read(&["10.88.0.2/24", "10.88.0.2/25"], MAC, 1500), None);
    assert_eq!(read(&["10.88.0.2/24"; 9], MAC, 1500), None);
}

#[test]
fn refuses_hardware_addresses_of_groups_of_makers_and_other_spellings() {
    for mac in [
        "03:00:00:00:00:01",
        "00:00:00:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "02:0A:58:00:00:02",
        "2:0:0:0:0:1",
        "02:0a:58:00:00",
        "02:0a:58:00:00:02:03",
        "02-0a-58-00-00-02",
        "+2:0a:58:00:00:02",
        "",
    ] {
        assert_eq!(read(&["10.88.0.2/24"], mac, 1500), None, "{mac}");
    }
}

#[test]
fn bounds_the_size_of_packets() {
    assert!(read(&["10.88.0.2/24"], MAC, 1280).is_some());
    assert_eq!(read(&["10.88.0.2/24"], MAC, 1279), None);
    assert_eq!(read(&["10.88.0.2/24"], MAC, 1501), None);
}
