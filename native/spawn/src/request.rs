//! Requests of the agent, read from canonical JSON: exactly the members of docs/formats.md section 5.

use casemate_ticket::json::{self, Value};
use casemate_ticket::note::NOTE_BYTES_MAX;
use casemate_ticket::shape::{
    ShapeError, fields, integer, integer32, is_tenant_character, text, uuid, word, wrong,
};
use casemate_ticket::spec::{BLOCK_SIZE, MEMORY_MIB, SPEC_BYTES_MAX, VCPUS};
use casemate_ticket::ticket::RECORD_BYTES_MAX;

use crate::connection::REQUEST_BYTES_MAX;
use crate::refusal::Refusal;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What this host is and has.
    Describe,
    /// Start a pod.
    Launch(Launch),
    /// Build a template, or find it.
    Template {
        /// Virtual CPUs.
        vcpus: u32,
        /// Guest memory.
        memory_mib: u32,
    },
    /// Kill a pod.
    Kill(String),
    /// Ask the guest to stop, kill later.
    Stop {
        /// Launch id.
        pod: String,
        /// Time until it is killed.
        timeout_ms: u32,
    },
    /// What runs and what has ended.
    List,
    /// A fresh pod stream.
    Adopt(String),
    /// The counters of a running pod.
    Metrics(String),
    /// What it takes of the host.
    Usage(String),
    /// Stop its processors and devices where they are.
    Pause(String),
    /// Let them go on.
    Resume(String),
    /// More of its scratch disk.
    Resize {
        /// Launch id.
        pod: String,
        /// All bytes of the disk: whole blocks.
        scratch_bytes: u64,
    },
    /// Drop the status of an exited pod.
    Forget(String),
    /// What a record orders to be done with a volume.
    Volume {
        /// The receipt.
        ticket: String,
        /// Canonical bytes of the volume.intent.
        record: String,
    },
    /// A tenant's volumes.
    Volumes(String),
    /// Start a worker.
    Worker {
        /// Which, of those in spawn.json.
        kind: String,
        /// Bytes of the largest file that it may write.
        file_bytes: u64,
    },
}

/// What a launch is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The receipt.
    pub ticket: String,
    /// Canonical bytes of the launch.intent.
    pub record: String,
    /// Canonical bytes of the spec.
    pub spec: String,
}

/// Largest file of a worker: root's bound, above whatever the agent has room for.
const WORKER_FILE_BYTES_MAX: u64 = 12 << 30;
/// More than any disk may have.
const SCRATCH_BYTES_MAX: u64 = 1 << 40;
/// Longest time between STOP and kill, milliseconds.
const STOP_MS_MAX: u32 = 600_000;

impl Request {
    /// Reads one.
    ///
    /// # Errors
    /// `REQUEST`, with the member that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let refuse = |error: &dyn std::fmt::Display| {
            Refusal::new("REQUEST", format!("the request is refused: {error}"))
        };
        let value = json::parse(bytes, REQUEST_BYTES_MAX).map_err(|error| refuse(&error))?;
        read(&value).map_err(|error| refuse(&error))
    }
}

fn read(value: &Value) -> Result<Request, ShapeError> {
    let op = value.get("op").and_then(Value::as_str).unwrap_or_default();
    let plain = |request| fields(value, op, ["op"]).map(|_| request);
    let pod = || {
        let [_, pod] = fields(value, op, ["op", "pod"])?;
        Ok(uuid(pod, "pod", Some(b'7'))?.to_owned())
    };
    match op {
        "describe" => plain(Request::Describe),
        "list" => plain(Request::List),
        "launch" => read_launch(value),
        "template" => {
            let [memory_mib, _, vcpus] = fields(value, op, ["memory_mib", "op", "vcpus"])?;
            Ok(Request::Template {
                vcpus: integer32(vcpus, "vcpus", VCPUS)?,
                memory_mib: integer32(memory_mib, "memory_mib", MEMORY_MIB)?,
            })
        }
        "kill" => pod().map(Request::Kill),
        "stop" => {
            let [_, pod, timeout_ms] = fields(value, op, ["op", "pod", "timeout_ms"])?;
            Ok(Request::Stop {
                pod: uuid(pod, "pod", Some(b'7'))?.to_owned(),
                timeout_ms: integer32(timeout_ms, "timeout_ms", 0..=STOP_MS_MAX)?,
            })
        }
        "adopt" => pod().map(Request::Adopt),
        "metrics" => pod().map(Request::Metrics),
        "usage" => pod().map(Request::Usage),
        "pause" => pod().map(Request::Pause),
        "resume" => pod().map(Request::Resume),
        "resize" => {
            let [_, pod, bytes] = fields(value, op, ["op", "pod", "scratch_bytes"])?;
            let scratch_bytes = integer(bytes, "scratch_bytes", BLOCK_SIZE..=SCRATCH_BYTES_MAX)?;
            if !scratch_bytes.is_multiple_of(BLOCK_SIZE) {
                return Err(wrong("scratch_bytes", "must be a multiple of 4096"));
            }
            let pod = uuid(pod, "pod", Some(b'7'))?.to_owned();
            Ok(Request::Resize { pod, scratch_bytes })
        }
        "forget" => pod().map(Request::Forget),
        "volume" => {
            let [_, record, ticket] = fields(value, op, ["op", "record", "ticket"])?;
            Ok(Request::Volume {
                ticket: text(ticket, "ticket", NOTE_BYTES_MAX)?.to_owned(),
                record: text(record, "record", RECORD_BYTES_MAX)?.to_owned(),
            })
        }
        "volumes" => {
            let [_, tenant] = fields(value, op, ["op", "tenant"])?;
            Ok(Request::Volumes(word(tenant, "tenant", 63, is_tenant_character)?.to_owned()))
        }
        "worker" => {
            let [file_bytes, kind, _] = fields(value, op, ["file_bytes", "kind", "op"])?;
            Ok(Request::Worker {
                kind: word(kind, "kind", 32, is_tenant_character)?.to_owned(),
                file_bytes: integer(file_bytes, "file_bytes", 0..=WORKER_FILE_BYTES_MAX)?,
            })
        }
        _ => Err(wrong(
            "op",
            "must be describe, launch, template, kill, stop, pause, resume, list, resize, adopt, metrics, usage, forget, volume, volumes or worker",
        )),
    }
}

/// The three texts are bounded here and judged by the ticket's check.
fn read_launch(value: &Value) -> Result<Request, ShapeError> {
    let [_, record, spec, ticket] = fields(value, "launch", ["op", "record", "spec", "ticket"])?;
    Ok(Request::Launch(Launch {
        ticket: text(ticket, "ticket", NOTE_BYTES_MAX)?.to_owned(),
        record: text(record, "record", RECORD_BYTES_MAX)?.to_owned(),
        spec: text(spec, "spec", SPEC_BYTES_MAX)?.to_owned(),
    }))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]
mod tests {
    use super::*;

    const POD: &str = "01936f5e-0000-7000-8000-000000000001";

    #[test]
    fn reads_every_request() {
        let read = |text: &str| Request::parse(text.as_bytes()).unwrap();
        let with_pod = |op: &str| read(&format!(r#"{{"op":"{op}","pod":"{POD}"}}"#));
        let pod = || POD.to_owned();
        assert_eq!(read(r#"{"op":"describe"}"#), Request::Describe);
        assert_eq!(read(r#"{"op":"list"}"#), Request::List);
        assert_eq!(with_pod("kill"), Request::Kill(pod()));
        assert_eq!(with_pod("adopt"), Request::Adopt(pod()));
        assert_eq!(with_pod("usage"), Request::Usage(pod()));
        assert_eq!(with_pod("pause"), Request::Pause(pod()));
        assert_eq!(with_pod("resume"), Request::Resume(pod()));
        assert_eq!(with_pod("forget"), Request::Forget(pod()));
        assert_eq!(
            read(&format!(r#"{{"op":"stop","pod":"{POD}","timeout_ms":5}}"#)),
            Request::Stop { pod: pod(), timeout_ms: 5 }
        );
        assert_eq!(
            read(&format!(r#"{{"op":"resize","pod":"{POD}","scratch_bytes":8192}}"#)),
            Request::Resize { pod: pod(), scratch_bytes: 8192 }
        );
        assert_eq!(
            read(r#"{"memory_mib":128,"op":"template","vcpus":1}"#),
            Request::Template { vcpus: 1, memory_mib: 128 }
        );
        assert_eq!(
            read(r#"{"file_bytes":12884901888,"kind":"rootfs","op":"worker"}"#),
            Request::Worker { kind: "rootfs".into(), file_bytes: 12 << 30 }
        );
        assert_eq!(
            read(r#"{"op":"volume","record":"r","ticket":"t"}"#),
            Request::Volume { ticket: "t".into(), record: "r".into() }
        );
        assert_eq!(read(r#"{"op":"volumes","tenant":"acme"}"#), Request::Volumes("acme".into()));
        let launch = Launch { ticket: "t".into(), record: "r".into(), spec: "s".into() };
        assert_eq!(
            read(r#"{"op":"launch","record":"r","spec":"s","ticket":"t"}"#),
            Request::Launch(launch)
        );
    }

    #[test]
    fn refuses_disks_of_odd_sizes() {
        for bytes in ["-4096", "0", "1", "4097", "8191", "1099511631872", "\"8192\"", "null", "1e4"]
        {
            let text = format!(r#"{{"op":"resize","pod":"{POD}","scratch_bytes":{bytes}}}"#);
            assert_eq!(Request::parse(text.as_bytes()).unwrap_err().code, "REQUEST", "{bytes}");
        }
    }

    #[test]
    fn refuses_everything_else_with_the_member_that_is_wrong() {
        for (text, word) in [
            ("", "canonical"),
            ("{}", "op"),
            ("[]", "op"),
            (r#"{"op":"reboot"}"#, "op"),
            (r#"{"op":"list","x":1}"#, "x"),
            (r#"{"op": "list"}"#, "canonical"),
            (r#"{"op":"kill"}"#, "pod"),
            (r#"{"op":"kill","pod":"../../etc"}"#, "pod"),
            (r#"{"op":"kill","pod":"01936f5e-0000-4000-8000-000000000001"}"#, "pod"),
            (r#"{"memory_mib":64,"op":"template","vcpus":1}"#, "memory_mib"),
            (r#"{"memory_mib":16386,"op":"template","vcpus":1}"#, "memory_mib"),
            (r#"{"memory_mib":128,"op":"template","vcpus":9}"#, "vcpus"),
            (r#"{"op":"resize","pod":"x","scratch_bytes":8192}"#, "pod"),
            (r#"{"op":"resize","pod":"01936f5e-0000-7000-8000-000000000001"}"#, "scratch_bytes"),
            (r#"{"file_bytes":0,"kind":"../x","op":"worker"}"#, "kind"),
            (r#"{"kind":"rootfs","op":"worker"}"#, "file_bytes"),
            (r#"{"file_bytes":12884901889,"kind":"rootfs","op":"worker"}"#, "file_bytes"),
            (r#"{"file_bytes":-1,"kind":"rootfs","op":"worker"}"#, "file_bytes"),
            (r#"{"file_bytes":"1","kind":"rootfs","op":"worker"}"#, "file_bytes"),
            (r#"{"op":"volumes","tenant":"../acme"}"#, "tenant"),
            (r#"{"op":"volumes","tenant":""}"#, "tenant"),
            (r#"{"op":"volumes"}"#, "tenant"),
            (r#"{"op":"volume","record":"r"}"#, "ticket"),
            (r#"{"op":"volume","record":"r","tenant":"acme","ticket":"t"}"#, "tenant"),
            (r#"{"op":"launch","record":"r","spec":"s"}"#, "ticket"),
            (r#"{"op":"launch","record":"\u0000","spec":"s","ticket":"t"}"#, "record"),
        ] {
            let refusal = Request::parse(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, "REQUEST", "{text}");
            assert!(refusal.message.contains(word), "{text}: {}", refusal.message);
        }
    }
}
