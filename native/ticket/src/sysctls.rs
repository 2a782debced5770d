//! Parameters of the kernel that belong to the pod alone (`sysctls` of the spec, docs/formats.md section 2).
//!
//! Each is one of its network or IPC namespace. policy/nouns/sysctl.ts has the same list, with the reasons; what is on
//! neither is refused, whatever the kernel of the day would let a pod do.

use crate::json::Value;
use crate::shape::{self, ShapeError, fields, list, text, wrong};

/// Most parameters of a pod.
pub const SYSCTLS_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 256;

/// Names that may be set, sorted.
pub const NAMES: [&str; 30] = [
    "fs.mqueue.msg_default",
    "fs.mqueue.msg_max",
    "fs.mqueue.msgsize_default",
    "fs.mqueue.msgsize_max",
    "fs.mqueue.queues_max",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.ipv6.conf.all.disable_ipv6",
    "net.unix.max_dgram_qlen",
];

/// The most that a number of these may be: what waits in a pod's queues, and is buffered for its connections, is memory of
/// the host's kernel at level container, and not all of it counts as the pod's.
const MOST: [(&str, u64); 5] = [
    ("net.core.somaxconn", 65_535),
    ("net.ipv4.tcp_max_syn_backlog", 65_535),
    ("net.ipv4.tcp_rmem", 16_777_216),
    ("net.ipv4.tcp_wmem", 16_777_216),
    ("net.unix.max_dgram_qlen", 4096),
];

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// What is written: printable ASCII.
    pub value: String,
}

impl Sysctl {
    /// Whether it is one of the network namespace.
    #[must_use]
    pub fn is_of_network(&self) -> bool {
        self.name.starts_with("net.")
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/sys/{}", self.name.replace('.', "/"))
    }
}

/// Reads `sysctls`.
///
/// # Errors
/// One that is not listed, or listed twice; a value that is no text.
pub(crate) fn read(value: &Value) -> Result<Vec<Sysctl>, ShapeError> {
    let sysctls = list(value, "sysctls", SYSCTLS_MAX, |item, at| {
        let [name, value] = fields(item, at, ["name", "value"])?;
        let name = text(name, at, 64)?;
        let name = NAMES.into_iter().find(|known| *known == name);
        let name = name.ok_or_else(|| wrong(at, "must name a parameter that is the pod's own"))?;
        let value = shape::word(value, at, VALUE_BYTES_MAX, shape::is_printable)?;
        if is_too_much(name, value) {
            return Err(wrong(at, "is more than a pod may have"));
        }
        Ok(Sysctl { name, value: value.into() })
    })?;
    let is_again = |at: usize, sysctl: &Sysctl| {
        sysctls.iter().take(at).any(|before| before.name == sysctl.name)
    };
    if sysctls.iter().enumerate().any(|(at, sysctl)| is_again(at, sysctl)) {
        return Err(wrong("sysctls", "must have each parameter once"));
    }
    Ok(sysctls)
}

/// What is no number is the kernel's to refuse.
fn is_too_much(name: &str, value: &str) -> bool {
    let most = MOST.iter().find(|(limited, _)| *limited == name);
    let is_more = |most: u64| {
        let mut numbers = value.split_ascii_whitespace().map(str::parse::<u128>);
        numbers.any(|number| number.is_ok_and(|number| number > u128::from(most)))
    };
    most.is_some_and(|(_, most)| is_more(*most))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use crate::json::parse;

    fn sysctls(pairs: &[(&str, &str)]) -> Result<Vec<Sysctl>, ShapeError> {
        let items: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!(r#"{{"name":"{name}","value":"{value}"}}"#))
            .collect();
        read(&parse(format!("[{}]", items.join(",")).as_bytes(), 1 << 16).unwrap())
    }

    #[test]
    fn takes_what_is_the_pod_s_alone() {
        let found = sysctls(&[("net.core.somaxconn", "4096"), ("kernel.sem", "250 32000 32 128")]);
        let paths: Vec<String> = found.unwrap().iter().map(Sysctl::path).collect();
        assert_eq!(paths, ["/proc/sys/net/core/somaxconn", "/proc/sys/kernel/sem"]);
    }

    #[test]
    fn refuses_what_is_the_host_s_or_no_parameter() {
        for name in [
            "kernel.core_pattern",
            "vm.overcommit_memory",
            "net.core.rmem_max",
            "net.ipv4.ip_forward",
            "net.core.somaxconn/../../kernel/core_pattern",
            "net/core/somaxconn",
            "NET.CORE.SOMAXCONN",
            "",
        ] {
            assert!(sysctls(&[(name, "1")]).is_err(), "{name}");
        }
        for value in ["", r"1\n2", "é"] {
            assert!(sysctls(&[("net.core.somaxconn", value)]).is_err(), "{value}");
        }
        assert!(sysctls(&[("net.core.somaxconn", "1"), ("net.core.somaxconn", "1")]).is_err());
        assert!(sysctls(&[("net.core.somaxconn", "65536")]).is_err());
        assert!(sysctls(&[("net.ipv4.tcp_rmem", "4096 87380 16777217")]).is_err());
        assert!(sysctls(&[("net.ipv4.tcp_rmem", "4096 87380 16777216")]).is_ok());
    }
}
