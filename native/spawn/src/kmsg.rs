//! The kernel's own word on a VMM that died by SIGSYS: its audit line in /dev/kmsg.
//!
//! Only that one kind of line is read, and of it only numbers.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::syscalls;

/// An open /dev/kmsg.
#[derive(Debug)]
pub struct Kmsg(OwnedFd);

impl Kmsg {
    /// Opens it, behind everything that is there, or before it: a VM that is taken over may have ended before that.
    /// `None` where the kernel has none to give: deaths are then reported without the call's name.
    pub fn open(whole: bool) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
        let start = if whole { SeekFrom::Start(0) } else { SeekFrom::End(0) };
        rustix::fs::seek(&file, start).ok()?;
        Some(Self(file))
    }

    /// Reads all new lines and returns each seccomp kill among them.
    ///
    /// # Errors
    /// What the kernel says, but not that lines were overwritten before they were read.
    pub fn seccomp_kills(&self) -> io::Result<Vec<Kill>> {
        let mut kills = Vec::new();
        let mut record = [0_u8; 8192];
        loop {
            match rustix::io::read(&self.0, &mut record) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(kills),
                Ok(length) => {
                    let line = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    kills.extend(parse(&line));
                }
                // Overwritten, or longer than the buffer; the next read goes on behind it.
                Err(Errno::PIPE | Errno::INVAL | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A process that its filter killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Its pid.
    pub pid: i32,
    /// Its user: pids come round, and never in a VM's life to another of the same user.
    pub uid: u32,
    /// The system call.
    pub call: i64,
}

/// What an audit line says that is of type 1326 (`AUDIT_SECCOMP`). Names in quotes are the
/// process's own words and come after the pid, before the call; a quoted name cannot contain a
/// space or a quote (the kernel writes such names in hexadecimal).
fn parse(line: &str) -> Option<Kill> {
    // "<priority>,<sequence>,<time>,<flags>;<text>"; a process may write to kmsg too, but only as
    // facility "user" or above, never as the kernel's own facility 0.
    let (prefix, text) = line.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let words = text.lines().next()?.strip_prefix("audit: type=1326 ")?;
    let field = |name: &str| words.split(' ').find_map(|word| word.strip_prefix(name));
    let pid = field("pid=")?.parse().ok()?;
    let uid = field("uid=")?.parse().ok()?;
    let call = field("syscall=")?.parse().ok()?;
    (priority < 8).then_some(Kill { pid, uid, call })
}

/// "connect (42)" for a call that is known, "system call 999" otherwise.
pub fn describe(call: i64) -> String {
    match syscalls::name(call) {
        Some(name) => format!("{name} ({call})"),
        None => format!("system call {call}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kill, describe, parse};

    const LINE: &str = "5,811,417367594,-;audit: type=1326 audit(1795528828.221:2): auid=4294967295 uid=2000003 gid=2000003 ses=4294967295 pid=26041 comm=\"vcpu0\" exe=\"/casemate-vmm\" sig=31 arch=c000003e syscall=42 compat=0 ip=0x7f8391380829 code=0x80000000\n SUBSYSTEM=x\n";

    #[test]
    fn reads_pid_and_call_of_a_seccomp_kill() {
        assert_eq!(parse(LINE), Some(Kill { pid: 26041, uid: 2_000_003, call: 42 }));
        assert_eq!(describe(42), "connect (42)");
        assert_eq!(describe(9999), "system call 9999");
    }

    #[test]
    fn ignores_other_lines_and_forged_ones() {
        assert_eq!(parse(&LINE.replace("type=1326", "type=1300")), None);
        assert_eq!(
            parse(&LINE.replacen("5,", "12,", 1)),
            None,
            "written by a process, not the kernel"
        );
        assert_eq!(parse(&LINE.replace("pid=", "pad=")), None);
        assert_eq!(parse(&LINE.replace(" uid=", " vid=")), None);
        assert_eq!(parse(&LINE.replace("syscall=42", "syscall=x")), None);
        assert_eq!(parse("6,1,1,-;x audit: type=1326 pid=1 syscall=2"), None);
        assert_eq!(parse(""), None);
    }
}
