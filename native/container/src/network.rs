//! What the pod's apps share: network, IPC and host name are the monitor's own namespaces, which nothing else was ever in.
//! The router has put the card into the first before the monitor was let in, and judges what comes out of the other end;
//! what is set here, inside, is as in a machine.

use std::fs;
use std::io::{self, ErrorKind};

use casemate_ticket::app::{App, CAPABILITIES};
use casemate_ticket::spec::Spec;
use casemate_ticket::sysctls::Sysctl;
use casemate_vmm::failure::{Failure, failure};
use casemate_wire::control::Reason;
use guest_init::network::{CARD, bring_loopback_up, configure};
use rustix::system::sethostname;

use crate::bundle::IDS;

/// Makes everything as the spec says, for a pod with ids from `first` on.
///
/// # Errors
/// `IO` with the step.
pub fn make(spec: &Spec, first: u32) -> Result<(), Failure> {
    let failed = |text: std::fmt::Arguments<'_>| failure(Reason::Io, text);
    bring_loopback_up().map_err(|errno| failed(format_args!("the loopback interface: {errno}")))?;
    allow(&spec.apps, first)
        .map_err(|error| failed(format_args!("settings of the network: {error}")))?;
    sethostname(spec.hostname.as_bytes())
        .map_err(|errno| failed(format_args!("the host name: {errno}")))?;
    for sysctl in &spec.sysctls {
        fs::write(sysctl.path(), value_of(sysctl, first)).map_err(|error| {
            failed(format_args!("cannot set {} to {:?}: {error}", sysctl.name, sysctl.value))
        })?;
    }
    spec.network.as_ref().map_or(Ok(()), |network| {
        configure(CARD, network).map_err(|error| failed(format_args!("{}", error.text)))
    })
}

/// Capabilities of an app are of its user namespace, and this network is not. What two of those that images count on are
/// there for is permitted to the whole pod instead, if one of its apps may have them: ports below 1024, and ping.
fn allow(apps: &[App], first: u32) -> io::Result<()> {
    let may = |name: &str| {
        let number = CAPABILITIES.iter().position(|known| *known == name);
        let bit = number.and_then(|number| u32::try_from(number).ok());
        let has = |app: &App, bit: u32| app.process.capabilities.bounding & (1_u64 << bit) != 0;
        bit.is_some_and(|bit| apps.iter().any(|app| has(app, bit)))
    };
    if may("CAP_NET_BIND_SERVICE") {
        set("ip_unprivileged_port_start", "0")?;
    }
    if may("CAP_NET_RAW") {
        let last = first.saturating_add(IDS.saturating_sub(1));
        set("ping_group_range", &format!("{first} {last}"))?;
    }
    Ok(())
}

/// Ids are the pod's there, and the host's where it is written.
fn value_of(sysctl: &Sysctl, first: u32) -> String {
    if sysctl.name != "net.ipv4.ping_group_range" {
        return sysctl.value.clone();
    }
    let words = sysctl.value.split_ascii_whitespace().map(|word| match word.parse::<u32>() {
        Ok(id) => first.saturating_add(id.min(IDS.saturating_sub(1))).to_string(),
        // For the kernel to refuse.
        Err(_) => word.into(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn set(name: &str, value: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv4/{name}"), value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written,
    }
}
