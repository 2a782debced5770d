//! `/etc/hosts` and `/etc/resolv.conf` of an app with a network, written into its own layer above the image before it
//! is there to look.
//!
//! What an image brings is left as it is, as appc has it, unless somebody asked for more: a `resolv.conf` is replaced
//! when there is anything to say in it, and lines for hosts go behind those of the image. Both become plain files in
//! place of links, which are never followed.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_ticket::network::Network;
use casemate_ticket::ways::Names;
use casemate_wire::payload::ErrorCode;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

use crate::failure::{Failure, OrFailure};

/// Of an image's hosts file to which lines are added.
const HOSTS_BYTES_MAX: u64 = 64 << 10;
const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Writes both below `root`, the app's.
///
/// # Errors
/// [`ErrorCode::Network`] with the file that could not be written.
pub fn write(root: BorrowedFd<'_>, network: &Network, hostname: &str) -> Result<(), Failure> {
    let etc = open_etc(root).or_failure(ErrorCode::Network, "use /etc, which must be no link")?;
    if let Some(text) = resolv_conf(&network.names) {
        replace(etc.as_fd(), "resolv.conf", &text)
            .or_failure(ErrorCode::Network, "write /etc/resolv.conf")?;
    }
    let hosts = || -> io::Result<()> {
        let known = read_hosts(etc.as_fd())?;
        match hosts(known, network, hostname) {
            Some(text) => replace(etc.as_fd(), "hosts", &text),
            None => Ok(()),
        }
    };
    hosts().or_failure(ErrorCode::Network, "write /etc/hosts")
}

/// The same for an app that shares the host's network: the host's nameservers, and its hosts where the image names none.
/// What the host has not is left as it is.
///
/// # Errors
/// As of [`write`].
pub fn write_of_host(root: BorrowedFd<'_>, resolv: &str, hosts: &str) -> Result<(), Failure> {
    let etc = open_etc(root).or_failure(ErrorCode::Network, "use /etc, which must be no link")?;
    if !resolv.is_empty() {
        replace(etc.as_fd(), "resolv.conf", resolv)
            .or_failure(ErrorCode::Network, "write /etc/resolv.conf")?;
    }
    let write = || match read_hosts(etc.as_fd()) {
        Ok(Some(known)) if known.is_empty() && !hosts.is_empty() => {
            replace(etc.as_fd(), "hosts", hosts)
        }
        Err(error) if error.kind() != ErrorKind::FileTooLarge => Err(error),
        _ => Ok(()),
    };
    write().or_failure(ErrorCode::Network, "write /etc/hosts")
}

fn open_etc(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    match mkdirat(root, "etc", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(root, "etc", flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn replace(etc: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    match unlinkat(etc, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(etc, name, flags, Mode::from_raw_mode(0o644))?);
    // Whatever the umask is.
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    file.write_all(text.as_bytes())
}

/// What the image has; `None` for something else than a file, which nobody's lines are in.
fn read_hosts(etc: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(etc, "hosts", flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Some(String::new())),
        Err(Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(HOSTS_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > HOSTS_BYTES_MAX {
        let problem = "the image's is larger than 64 KiB: add no hosts to it";
        return Err(io::Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// `None` when there is nothing to say.
fn resolv_conf(names: &Names) -> Option<String> {
    let mut text = String::new();
    for nameserver in &names.nameservers {
        let _ = writeln!(text, "nameserver {nameserver}");
    }
    for (word, list) in [("search", &names.search), ("options", &names.options)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{word} {}", list.join(" "));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// `None` when the image's file is to stay.
fn hosts(known: Option<String>, network: &Network, hostname: &str) -> Option<String> {
    let wanted = &network.names.hosts;
    let is_the_images = known.as_ref().is_none_or(|text| !text.is_empty());
    if is_the_images && wanted.is_empty() {
        return None;
    }
    let mut text = known.filter(|text| !text.is_empty()).unwrap_or_else(|| LOCAL.into());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let own = network.addresses.iter().map(|address| (address.ip, hostname));
    let others = wanted.iter().map(|(ip, name)| (*ip, name.as_str()));
    for (ip, name) in own.chain(others) {
        let ip: IpAddr = ip;
        let _ = writeln!(text, "{ip}\t{name}");
    }
    Some(text)
}
