//! What a group may use, as the files of either version of cgroups have it.

use std::fs;
use std::io;
use std::path::Path;

/// Microseconds of one CPU quota period.
const PERIOD_US: u64 = 100_000;

/// What a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, no swap.
    pub memory_bytes: u64,
    /// CPU time in percent of one CPU.
    pub cpu_percent: u32,
    /// Tasks: processes and threads.
    pub pids: u32,
}

/// A file of a group and what is written to it; `optional` files are missing on some kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub file: &'static str,
    pub value: String,
    pub optional: bool,
}

fn setting(file: &'static str, value: impl Into<Value>, optional: bool) -> Setting {
    let Value(value) = value.into();
    Setting { file, value, optional }
}

/// What is written, as text.
struct Value(String);

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text)
    }
}

fn quota_us(limits: &Limits) -> u64 {
    u64::from(limits.cpu_percent).saturating_mul(PERIOD_US / 100)
}

/// Swap is off because guest memory in a swap file outlives its tenant.
pub fn v1_memory(limits: &Limits) -> Vec<Setting> {
    vec![
        setting("memory.limit_in_bytes", limits.memory_bytes, false),
        setting("memory.memsw.limit_in_bytes", limits.memory_bytes, true),
        setting("memory.swappiness", 0_u64, true),
    ]
}

pub fn v1_cpu(limits: &Limits) -> Vec<Setting> {
    vec![
        setting("cpu.cfs_period_us", PERIOD_US, false),
        setting("cpu.cfs_quota_us", quota_us(limits), false),
    ]
}

pub fn v1_pids(limits: &Limits) -> Vec<Setting> {
    vec![setting("pids.max", u64::from(limits.pids), false)]
}

pub fn v2_all(limits: &Limits) -> Vec<Setting> {
    vec![
        setting("memory.max", limits.memory_bytes, false),
        setting("memory.swap.max", 0_u64, true),
        setting("memory.oom.group", 1_u64, false),
        setting("cpu.max", format!("{} {PERIOD_US}", quota_us(limits)), false),
        setting("pids.max", u64::from(limits.pids), false),
    ]
}

pub fn write_all(directory: &Path, settings: &[Setting]) -> io::Result<()> {
    for Setting { file, value, optional } in settings {
        let path = directory.join(file);
        match fs::write(&path, value) {
            Err(_) if *optional => {}
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{} = {value}: {error}", path.display()),
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
