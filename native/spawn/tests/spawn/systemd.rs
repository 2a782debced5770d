//! Spawn with a keeper that is not ours: the protocol as systemd speaks it, in the order in which systemd hands
//! descriptors over (the latest first), and without reaping anything.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::client::read_exactly;
use crate::host::{Host, host_by, wait_for};
use crate::takeover::state;

/// What is kept, and where it comes from.
struct Store {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Vec<(String, OwnedFd)>,
    ready: usize,
    /// Messages with descriptors.
    puts: usize,
}

impl Store {
    fn open() -> Self {
        let path = std::env::temp_dir().join(format!("casemate-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path, kept: Vec::new(), ready: 0, puts: 0 }
    }

    /// Takes everything that was sent.
    fn read(&mut self) {
        let mut buffer = [0; 1024];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let Ok(message) = recvmsg(&self.socket, &mut into, &mut control, flags) else { return };
            let descriptors: Vec<OwnedFd> = control
                .drain()
                .flat_map(|part| match part {
                    RecvAncillaryMessage::ScmRights(received) => received.collect(),
                    _ => Vec::new(),
                })
                .collect();
            let text = std::str::from_utf8(&buffer[..message.bytes]).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let name = || lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap();
            match lines[0] {
                "READY=1" => self.ready += 1,
                "FDSTORE=1" => {
                    // Or systemd would close what has hung up, with the last word still in it.
                    assert!(lines.contains(&"FDPOLL=0"), "{text}");
                    self.puts += 1;
                    for fd in descriptors {
                        self.kept.insert(0, (name().to_owned(), fd));
                    }
                }
                "FDSTOREREMOVE=1" => self.kept.retain(|(kept, _)| kept != name()),
                other => panic!("{other}"),
            }
        }
    }

    fn names(&mut self) -> Vec<&str> {
        self.read();
        self.kept.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Starts the next spawn, with all that is kept.
    fn restart(&mut self, host: Host) -> Host {
        self.read();
        // Open across exec for the moment in which it is started.
        let open: Vec<OwnedFd> =
            self.kept.iter().map(|(_, fd)| rustix::io::dup(fd).unwrap()).collect();
        let moved = (3..).zip(&open).map(|(to, from)| format!("{to}<&{}", from.as_raw_fd()));
        let script = format!(
            "exec {}; NOTIFY_SOCKET={} LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={} exec \"$@\"",
            moved.collect::<Vec<_>>().join(" "),
            self.path.display(),
            open.len(),
            self.kept.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(":"),
        );
        let spawn = env!("CARGO_BIN_EXE_casemate-spawn");
        let command = ["/bin/bash", "-c", &script, "sh", spawn].map(PathBuf::from);
        host.restart_by(command.into())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the kernel keeps the status of who was reaped with its pidfd.
fn keeps_statuses() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn pods_outlive_spawn_under_systemd_s_store() {
    let mut store = Store::open();
    let variable = format!("NOTIFY_SOCKET={}", store.path.display());
    let Some(mut host) = host_by(&["/usr/bin/env", &variable]) else { return };
    assert_eq!(store.names(), ["listener", "network"]);
    assert_eq!(store.ready, 1);
    let (first, _, first_stream) = host.start(&["listens"]);
    let (second, _, second_stream) = host.start(&["listens"]);
    for stream in [&first_stream, &second_stream] {
        assert_eq!(read_exactly(stream, 5), b"hello");
    }
    let of = |pod: &str| format!("pod.{pod}");
    let (one, two) = (of(&first), of(&second));
    assert_eq!(store.names()[..6], [&two, &two, &two, &one, &one, &one]);
    for times in 2..4 {
        host = store.restart(host);
        assert_eq!(store.names().len(), 8);
        assert_eq!(store.puts, 4, "what is there is left there");
        assert_eq!(store.ready, times);
        for pod in [&first, &second] {
            assert_eq!(state(&host, pod).as_deref(), Some("running"));
        }
    }
    rustix::io::write(&first_stream, b"e").unwrap();
    assert_eq!(host.exit_of(&first, first_stream).0, "code 5 APP_EXIT");
    wait_for("the first pod's descriptors to be closed", || {
        (!store.names().contains(&of(&first).as_str())).then_some(())
    });
    rustix::io::write(&second_stream, b"q").unwrap();
    // Nobody's child: the host's init reaps it, sooner or later.
    let (exit, sentence) = host.exit_of(&second, second_stream);
    let unknown = exit == "vmm 0 VMM_END_UNKNOWN" && !keeps_statuses();
    assert!(exit == "vmm 7 VMM_EXIT" || unknown, "{exit} {sentence}");
    host = store.restart(host);
    assert_eq!(host.pods().len(), 2, "their ends are kept");
    assert_eq!(store.names(), ["listener", "network"]);
}
