//! The processes of the pod, as its own /proc has them: one line of canonical JSON for each.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write, stdout};

use casemate_ticket::json::{Value, write};

use super::{OrTrouble, Outcome, say};

/// Processes that are told of; what there is beyond is said.
const PROCESSES_MAX: usize = 4096;
/// Bytes of a command, and of a file of /proc.
const COMMAND_MAX: usize = 512;
const FILE_MAX: u64 = 16_384;
/// Of the image's passwd: names are for people, and a number is one as well.
const PASSWD_MAX: u64 = 1 << 20;
/// `USER_HZ` of every Linux on this machine's kind of processor: what times in /proc count in.
const TICK_US: i64 = 10_000;

/// Writes the list to standard output. False: there are more than are told of.
///
/// # Errors
/// Why there is none.
pub fn run() -> Outcome<bool> {
    let names = user_names();
    // At level host /proc has the host's processes as well.
    let own_group = group_of("self");
    let mut out = BufWriter::new(stdout());
    let mut numbers: Vec<u32> = fs::read_dir("/proc")
        .or_trouble("read /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| own_group.is_some() && group_of(&pid.to_string()) == own_group)
        .collect();
    numbers.sort_unstable();
    let own = std::process::id();
    let told = numbers.iter().filter(|pid| **pid != own).take(PROCESSES_MAX);
    // One that ends meanwhile is not there any more.
    for line in told.filter_map(|pid| process(*pid, &names)) {
        writeln!(out, "{}", write(&line)).or_trouble("write the list")?;
    }
    out.flush().or_trouble("write the list")?;
    let whole = numbers.len() <= PROCESSES_MAX;
    if !whole {
        say(&format!("there are more than {PROCESSES_MAX} processes"));
    }
    Ok(whole)
}

fn group_of(pid: &str) -> Option<String> {
    text_of(&format!("/proc/{pid}/cgroup"), FILE_MAX)
}

fn text_of(path: &str, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Numbers of users by the image's passwd. The first of several names counts, as for getpwuid(3).
fn user_names() -> HashMap<u32, String> {
    // A FIFO there would have nobody at its other end.
    let regular = fs::metadata("/etc/passwd").is_ok_and(|data| data.is_file());
    let passwd = regular.then(|| text_of("/etc/passwd", PASSWD_MAX)).flatten().unwrap_or_default();
    let mut names = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), _, Some(Ok(uid))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
        {
            names.entry(uid).or_insert_with(|| printable(name, 64));
        }
    }
    names
}

fn process(pid: u32, names: &HashMap<u32, String>) -> Option<Value> {
    let stat = text_of(&format!("/proc/{pid}/stat"), FILE_MAX)?;
    let status = text_of(&format!("/proc/{pid}/status"), FILE_MAX)?;
    let command = text_of(&format!("/proc/{pid}/cmdline"), FILE_MAX)?;
    value_of(pid, &stat, &status, &command, names)
}

/// Of the texts of its folder.
fn value_of(
    pid: u32,
    stat: &str,
    status: &str,
    command: &str,
    names: &HashMap<u32, String>,
) -> Option<Value> {
    // Its own name is in parentheses and may have some itself.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<i64>().ok());
    let line = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_ascii_whitespace().next()?.parse::<i64>().ok()
    };
    let uid = line("Uid")?;
    let user = u32::try_from(uid).ok().and_then(|uid| names.get(&uid));
    let ticks = number(11)?.saturating_add(number(12)?);
    let text = command.trim_end_matches('\0').replace('\0', " ");
    // A thread of the kernel's, or a process that is over, has no command.
    let text = if text.is_empty() { format!("[{name}]") } else { text };
    Some(Value::object(vec![
        ("pid".into(), Value::Integer(pid.into())),
        ("ppid".into(), Value::Integer(number(1)?)),
        ("uid".into(), Value::Integer(uid)),
        ("user".into(), user.map_or(Value::Null, |name| Value::String(name.clone()))),
        ("state".into(), Value::String(printable(fields.first()?, 1))),
        ("threads".into(), Value::Integer(number(17)?)),
        ("cpu_us".into(), Value::Integer(ticks.saturating_mul(TICK_US))),
        // A process that is over has none.
        ("memory_bytes".into(), Value::Integer(line("VmRSS").unwrap_or(0).saturating_mul(1024))),
        ("command".into(), Value::String(printable(&text, COMMAND_MAX))),
    ]))
}

/// What steers no terminal, at most so many bytes.
fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|one| if matches!(one, ' '..='~') { one } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t33\t0\t0\t0\nVmRSS:\t     8 kB\n";

    #[test]
    fn reads_a_process_whatever_it_calls_itself() {
        let names = HashMap::from([(33, "web".to_owned())]);
        let stat = "7 (a) S 9 (b) R 1 7 7 0 -1 4194560 1 0 0 0 25 5 0 0 20 0 3 0 100 0 0";
        let value = value_of(7, stat, STATUS, "a\0\u{1b}[2J\0", &names).unwrap();
        let expected = r#"{"command":"a ?[2J","cpu_us":300000,"memory_bytes":8192,"pid":7,"ppid":1,"state":"R","threads":3,"uid":33,"user":"web"}"#;
        assert_eq!(write(&value), expected);
        let other = value_of(7, stat, STATUS, "", &HashMap::new()).unwrap();
        assert_eq!(other.get("command").unwrap().as_str(), Some("[a) S 9 (b]"));
        assert_eq!(other.get("user"), Some(&Value::Null));
    }

    #[test]
    fn tells_nothing_of_what_it_cannot_read() {
        for stat in ["", "7", "7 (a)", "7 (a) R", "7 (a) R 1 7 7 0 -1 0 1 0 0 0 x 5 0 0 20 0 3"] {
            assert!(value_of(7, stat, STATUS, "", &HashMap::new()).is_none(), "{stat}");
        }
        assert!(value_of(7, "7 (a) R 1", "", "", &HashMap::new()).is_none());
    }
}
