//! What the pod's apps share: network, IPC and host name are the monitor's own namespaces, which nothing else was ever in.
//! The router has put the card into the first before the monitor was let in, and judges what comes out of the other end;
//! what is set here, inside, is as in a machine.
//!
//! At level host they are the host's, of which nothing is set, and the pod gets the host's names.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;

use casemate_ticket::app::{App, CAPABILITIES};
use casemate_ticket::spec::{Level, Spec};
use casemate_ticket::sysctls::Sysctl;
use casemate_vmm::failure::{Failure, failure};
use casemate_wire::control::Reason;
use guest_init::names;
use guest_init::network::{CARD, bring_loopback_up, configure};
use rustix::system::sethostname;

use crate::bundle::IDS;
use crate::root;

/// Of each of the host's two files: what is larger is as if it were not there.
const NAMES_BYTES_MAX: u64 = 64 << 10;

/// Makes everything as the spec says, for a pod with ids from `first` on; nothing for one with the host's.
///
/// # Errors
/// `IO` with the step.
pub fn make(spec: &Spec, first: Option<u32>) -> Result<(), Failure> {
    let Some(first) = first else { return Ok(()) };
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

/// At level host, names that the host has, into the roots that are mounted.
///
/// # Errors
/// `IO` with the file.
pub fn take_names(spec: &Spec) -> Result<(), Failure> {
    if spec.level != Level::Host {
        return Ok(());
    }
    let failed = |text: std::fmt::Arguments<'_>| failure(Reason::Io, text);
    let read = |path: &str| {
        read_small(path).map_err(|error| failed(format_args!("the host's {path}: {error}")))
    };
    let (resolv, hosts) = (read("/etc/resolv.conf")?, read("/etc/hosts")?);
    (0..spec.apps.len()).try_for_each(|place| {
        let root = File::open(root::of_app(place))
            .map_err(|error| failed(format_args!("the root of an app: {error}")))?;
        names::write_of_host(root.as_fd(), &resolv, &hosts)
            .map_err(|error| failed(format_args!("{}", error.text)))
    })
}

/// Empty where there is none.
fn read_small(path: &str) -> io::Result<String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let read = file.take(NAMES_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > NAMES_BYTES_MAX {
        return Ok(String::new());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
