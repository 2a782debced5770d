//! CONFIG frames for the tests: a default app, and changes to it.

use casemate_ticket::json::{Value, parse, write};

pub struct Config {
    pub name: &'static str,
    /// Canonical JSON.
    pub after: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub gids: Vec<i64>,
    /// Names without `CAP_`, for all sets but the ambient one.
    pub capabilities: Vec<&'static str>,
    pub ambient: Vec<&'static str>,
    pub rlimits: Vec<(&'static str, i64, i64)>,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub stop_signal: i64,
    pub seccomp: Option<Vec<[u8; 8]>>,
    /// Canonical JSON, an array.
    pub mounts: String,
    /// Their content.
    pub files: Vec<u8>,
    /// Names and values.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// Canonical JSON.
    pub health: Option<String>,
    /// Canonical JSON.
    pub network: Option<&'static str>,
}

/// The app of the image, told to do `what`.
pub fn app(what: &[&str]) -> Config {
    let args = ["/bin/app", "app"].iter().chain(what).map(ToString::to_string).collect();
    Config {
        name: "app",
        after: "null".into(),
        args,
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: String::new(),
        gids: vec![],
        capabilities: vec![],
        ambient: vec![],
        rlimits: vec![],
        no_new_privileges: true,
        read_only_root: false,
        stop_signal: 15,
        seccomp: None,
        mounts: "[]".into(),
        files: vec![],
        sysctls: vec![],
        health: None,
        network: None,
    }
}

fn object(members: &[(&str, Value)]) -> Value {
    Value::object(members.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

fn strings<T: AsRef<str>>(items: &[T]) -> Value {
    Value::Array(items.iter().map(|item| Value::String(item.as_ref().into())).collect())
}

fn capability_set(names: &[&str]) -> Value {
    strings(&names.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>())
}

impl Config {
    pub fn bytes(&self) -> Vec<u8> {
        Self::of_all(std::slice::from_ref(self))
    }

    /// CONFIG of a pod of these; what is the pod's is that of the first.
    pub fn of_all(apps: &[Self]) -> Vec<u8> {
        let first = &apps[0];
        let sysctls = first.sysctls.iter().map(|(name, value)| {
            object(&[
                ("name", Value::String((*name).into())),
                ("value", Value::String((*value).into())),
            ])
        });
        let mut members = vec![
            ("apps", Value::Array(apps.iter().map(Self::value).collect())),
            ("hostname", Value::String("web-1".into())),
            ("stop_ms", Value::Integer(60_000)),
            ("sysctls", Value::Array(sysctls.collect())),
        ];
        let network = first.network.map(|text| parse(text.as_bytes(), 4096).unwrap());
        members.extend(network.map(|network| ("network", network)));
        write(&object(&members)).into_bytes()
    }

    fn value(&self) -> Value {
        let most = capability_set(&self.capabilities);
        let capabilities = object(&[
            ("ambient", capability_set(&self.ambient)),
            ("bounding", most.clone()),
            ("effective", most.clone()),
            ("inheritable", capability_set(&self.ambient)),
            ("permitted", most),
        ]);
        let rlimits = self.rlimits.iter().map(|(kind, soft, hard)| {
            object(&[
                ("hard", Value::Integer(*hard)),
                ("soft", Value::Integer(*soft)),
                ("type", Value::String((*kind).into())),
            ])
        });
        let process = object(&[
            ("args", strings(&self.args)),
            ("env", strings(&self.env)),
            ("cwd", Value::String(self.cwd.clone())),
            ("user", Value::String(self.user.clone())),
            (
                "additional_gids",
                Value::Array(self.gids.iter().map(|gid| Value::Integer(*gid)).collect()),
            ),
            ("capabilities", capabilities),
            ("rlimits", Value::Array(rlimits.collect())),
            ("no_new_privileges", Value::Bool(self.no_new_privileges)),
        ]);
        let seccomp = self.seccomp.as_ref().map_or(Value::Null, |program| {
            let digest = format!("sha256:{}", "0".repeat(64));
            object(&[
                ("digest", Value::String(digest)),
                ("program", Value::String(base64(&program.concat()))),
            ])
        });
        let health =
            self.health.as_ref().map_or(Value::Null, |text| parse(text.as_bytes(), 4096).unwrap());
        object(&[
            ("after", parse(self.after.as_bytes(), 4096).unwrap()),
            ("health", health),
            ("image", Value::Integer(0)),
            ("mounts", parse(self.mounts.as_bytes(), 65_536).unwrap()),
            ("name", Value::String(self.name.into())),
            ("process", process),
            ("read_only_root", Value::Bool(self.read_only_root)),
            ("seccomp", seccomp),
            ("stop_signal", Value::Integer(self.stop_signal)),
        ])
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
