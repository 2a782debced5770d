//! What a VM takes of the host, as the kernel counts it. Nothing of it is the VM's word, so it is there for a paused one as well.

use std::fs;

use casemate_ticket::json::Value;

use crate::answers::{number, object};
use crate::cgroup::Cgroup;
use crate::resize::ScratchDisk;

/// Clock ticks of /proc in microseconds: `USER_HZ` is 100 on x86.
const TICK_US: u64 = 10_000;

/// A VM's share of the host; `None` where this kernel does not count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads, microseconds.
    pub cpu_us: Option<u64>,
    /// How long threads had to wait because the quota was used up, microseconds.
    pub cpu_throttled_us: Option<u64>,
    /// Bytes of memory, the page cache of its files included.
    pub memory_bytes: Option<u64>,
    /// The most that it was.
    pub memory_peak_bytes: Option<u64>,
    /// Bytes of the scratch disk, for the guest.
    pub scratch_bytes: Option<u64>,
    /// Bytes of the host's disk that it takes.
    pub scratch_used_bytes: Option<u64>,
    /// Threads.
    pub tasks: Option<u64>,
}

impl Usage {
    /// Of the process `pid`, which is alone in its group, or has a container in a group below.
    pub fn of(group: &Cgroup, pid: i32, scratch: Option<&ScratchDisk>) -> Self {
        let whole = |names: &[&str]| {
            names.iter().find_map(|name| group.read(name)?.trim().parse::<u64>().ok())
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Self {
            cpu_us: processor_us(&stat).map(|us| us.saturating_add(inner_us(group).unwrap_or(0))),
            cpu_throttled_us: throttled_us(&group.read("cpu.stat").unwrap_or_default()),
            memory_bytes: whole(&["memory.current", "memory.usage_in_bytes"]),
            memory_peak_bytes: whole(&["memory.peak", "memory.max_usage_in_bytes"]),
            scratch_bytes: scratch.map(|disk| disk.size.bytes),
            scratch_used_bytes: scratch.and_then(ScratchDisk::used_bytes),
            tasks: whole(&["pids.current"]),
        }
    }

    /// As docs/formats.md section 5 spells it.
    pub fn to_value(self) -> Value {
        let count = |value: Option<u64>| value.map_or(Value::Null, number);
        object(vec![
            ("cpu_us", count(self.cpu_us)),
            ("cpu_throttled_us", count(self.cpu_throttled_us)),
            ("memory_bytes", count(self.memory_bytes)),
            ("memory_peak_bytes", count(self.memory_peak_bytes)),
            ("scratch_bytes", count(self.scratch_bytes)),
            ("scratch_used_bytes", count(self.scratch_used_bytes)),
            ("tasks", count(self.tasks)),
        ])
    }
}

/// `utime` and `stime` (fields 14 and 15 of proc(5)). The name in parentheses may hold blanks and parentheses.
fn processor_us(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    user.checked_add(system)?.checked_mul(TICK_US)
}

/// Of a container's app: microseconds in version 2, nanoseconds in version 1.
fn inner_us(group: &Cgroup) -> Option<u64> {
    let v2 = group.read_inner("cpu.stat").unwrap_or_default();
    let line = v2.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let v1 = || group.read_inner("cpuacct.usage")?.trim().parse::<u64>().ok()?.checked_div(1000);
    line.and_then(|line| line.parse().ok()).or_else(v1)
}

/// Microseconds in version 2, nanoseconds in version 1.
fn throttled_us(stat: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.parse::<u64>().ok()
    };
    value("throttled_usec").or_else(|| value("throttled_time")?.checked_div(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_processor_time_behind_any_name() {
        let rest = "S 1 2 3 4 -1 5 6 7 8 9 250 50 0 0 20 0 4 0 99";
        assert_eq!(processor_us(&format!("77 (a) b (c)) {rest}")), Some(3_000_000));
        assert_eq!(processor_us("77 (vmm) S 1 2"), None);
        assert_eq!(processor_us(""), None);
    }

    #[test]
    fn reads_throttled_time_of_both_versions() {
        let v2 = "usage_usec 9\nnr_throttled 2\nthrottled_usec 1500\n";
        assert_eq!(throttled_us(v2), Some(1500));
        let v1 = "nr_periods 4\nnr_throttled 2\nthrottled_time 1500000\n";
        assert_eq!(throttled_us(v1), Some(1500));
        assert_eq!(throttled_us("nr_periods 4\n"), None);
    }
}
