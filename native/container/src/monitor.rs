//! The life of the process: what a VMM's I/O thread does, without a machine.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_ticket::spec::Level;
use casemate_vmm::agent_stream::AgentStream;
use casemate_vmm::control::receive;
use casemate_vmm::descriptors::{CONTROL, present};
use casemate_vmm::failure::{Failure, failure};
use casemate_vmm::guest::{Event, Guest, LogFile, Told};
use casemate_vmm::report::{Report, exit};
use casemate_wire::control::{FromSpawn, FromVmm, Reason};
use casemate_wire::log_ring::{Shape, Source, Writer};
use casemate_wire::metrics::Metrics;
use casemate_wire::order::Phase;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::bundle;
use crate::gather::{Parts, gather};
use crate::groups::Groups;
use crate::loops::Loops;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::{hand_unsafe, host_paths, limits_unsafe, network, privileges, root};

/// Exit status after a panic: a bug of this program.
const EXIT_PANIC: i32 = 70;
const TOKEN_CONTROL: u64 = 0;
const TOKEN_PIPE: u64 = 1;
const TOKEN_STREAM: u64 = 2;
const EVENTS: usize = 8;
const CHUNK: usize = 65_536;
const MIB: u64 = 1 << 20;
/// Between EXIT and the end of the session, which clears the container away. Spawn waits a second longer.
const CLEAR_WAIT: Duration = Duration::from_secs(4);

/// Runs one pod. `ids` is the first of its ids, `group` its inner cgroup below the mount points of the hierarchies, `oom`
/// that group's file with a line `oom_kill N`. Does not return.
pub fn main(ids: &str, group: &str, oom: &str) -> ! {
    std::panic::set_hook(Box::new(|_| exit(EXIT_PANIC)));
    let report = match present(CONTROL, "control socket") {
        Ok(control) => Report::new(control),
        Err(failure) => {
            eprintln!("casemate-container: {failure}");
            exit(1)
        }
    };
    match run(&report, ids, group, oom) {
        Ok(()) => exit(0),
        Err(failure) => report.die(&failure),
    }
}

fn run(report: &Report, ids: &str, group: &str, oom: &str) -> Result<(), Failure> {
    hand_unsafe::close_on_exec().map_err(|error| failed("descriptors", &error))?;
    let refuse = |text: &str| failure(Reason::LaunchDocument, format_args!("{text}"));
    let ids = ids.parse().map_err(|_| refuse("there are no ids for the pod"))?;
    let Parts {
        spec,
        container,
        gate,
        stream,
        image,
        copy,
        scratch,
        log,
        files,
        runtime,
        program,
        volumes,
        host_paths,
    } = gather()?;
    if bundle::digest() != container.bundle {
        return Err(failure(Reason::Machine, format_args!("the bundle is not the spec's")));
    }
    host_paths::secure(&spec, &host_paths, ids)?;
    for app in &spec.apps {
        limits_unsafe::make_room(&app.process.rlimits);
    }
    let mapped = (spec.level != Level::Host).then_some(ids);
    network::make(&spec, mapped)?;
    let image = root::take_image(image, copy)?;
    let scratch = root::build(&image, &scratch, mapped, spec.apps.len())?;
    network::take_names(&spec)?;
    let first_capabilities = privileges::of_first(spec.level, &spec.apps)
        .map_err(|error| failed("capabilities", &error))?;
    let runtime = Runtime {
        oci: hand_unsafe::out_of_the_way(&runtime)
            .map_err(|error| failed("descriptors", &error))?,
        program,
        config: spec.guest_config.clone(),
        level: spec.level,
        capabilities: privileges::of_session(spec.level, &spec.apps),
        first_capabilities,
        ids: mapped,
        groups: Groups { group: group.to_owned(), oom: PathBuf::from(oom), apps: spec.apps.len() },
        memory_bytes: u64::from(container.memory_mib).saturating_mul(MIB),
        pids: spec.limits.pids,
        pod: spec.launch_id.clone(),
        scratch,
        volumes,
        host_paths,
        loops: Loops::default(),
    };
    let shape = Shape::of_file(spec.log_size)
        .map_err(|error| failure(Reason::Descriptor, format_args!("log: {error}")))?;
    let log =
        Writer::format(LogFile(log), shape).map_err(|error| failed("the pod's log", &error))?;
    let seccomp = spec.seccomp_digest();
    let (control, io, vcpu) = (container.bundle.0, seccomp.0, spec.image.root);
    report.send(&FromVmm::Started { control, io, vcpu });
    let step = Duration::from_millis(spec.limits.boot_ms.into());
    let guest = Guest::new(true, Told { config: spec.guest_config, files }, Some(log), Some(gate))
        .with_apps(&spec.apps.iter().map(|app| app.health.is_some()).collect::<Vec<_>>());
    let monitor = Monitor::new(report.clone(), guest, stream, runtime, step)?;
    // The last of its ids, which no process of the container has.
    privileges::give_all_up(ids.saturating_add(bundle::IDS))
        .map_err(|error| failed("giving up privileges", &error))?;
    monitor.serve()
}

/// Everything the process works with once the container is being started.
struct Monitor {
    report: Report,
    guest: Guest,
    agent: AgentStream,
    epoll: Epoll,
    pipe: OwnedFd,
    session: Option<Session>,
    /// The session has closed its end.
    over: bool,
    deadline: Instant,
    step: Duration,
}

impl Monitor {
    fn new(
        report: Report,
        guest: Guest,
        stream: OwnedFd,
        runtime: Runtime,
        step: Duration,
    ) -> Result<Self, Failure> {
        let epoll = Epoll::new().map_err(|error| failed("epoll", &error))?;
        let (pipe, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|errno| failed("the session's pipe", &errno.into()))?;
        let watch = |descriptor: RawFd, token| {
            let wanted = EpollEvent::new(EventSet::IN, token);
            epoll
                .ctl(ControlOperation::Add, descriptor, wanted)
                .map_err(|error| failed("epoll", &error))
        };
        watch(report.socket().as_raw_fd(), TOKEN_CONTROL)?;
        watch(pipe.as_raw_fd(), TOKEN_PIPE)?;
        let mut agent = AgentStream::new(TOKEN_STREAM);
        agent.replace(&epoll, stream).map_err(|error| failed("the pod's stream", &error))?;
        let session = Some(Session::start(theirs, runtime)?);
        let now = Instant::now();
        let deadline = now.checked_add(step).unwrap_or(now);
        Ok(Self { report, guest, agent, epoll, pipe, session, over: false, deadline, step })
    }

    fn serve(mut self) -> Result<(), Failure> {
        let served = self.guest.send_unique().and_then(|()| self.work());
        self.agent.flush(&mut self.guest);
        if let Err(failure) = &served {
            let _ = self.guest.note(Source::VmmNote, failure.to_string().as_bytes());
        }
        // The session ends the app when its pipe is closed, and clears the container away.
        let _ = shutdown(&self.pipe, Shutdown::Both);
        let ended = self.session.take().map(Session::join);
        served?;
        match (self.guest.phase(), ended) {
            (Phase::Over, _) => Ok(()),
            (_, Some(Err(text))) => Err(failure(Reason::GuestGone, format_args!("{text}"))),
            _ => Err(failure(Reason::GuestGone, format_args!("the session ended without EXIT"))),
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        loop {
            self.settle()?;
            if self.over {
                return Ok(());
            }
            if self.guest.phase() != Phase::Running && Instant::now() >= self.deadline {
                return self.too_late();
            }
            self.wait()?;
        }
    }

    /// Everything that can be done without waiting.
    fn settle(&mut self) -> Result<(), Failure> {
        for event in self.guest.events() {
            self.act(&event)?;
        }
        self.agent.flush(&mut self.guest);
        self.push()?;
        let wants_input =
            self.guest.phase() == Phase::Running && self.guest.guest_backlog().is_empty();
        self.agent.watch(&self.epoll, wants_input, !self.guest.agent_backlog().is_empty());
        let mut events = EventSet::IN;
        events.set(EventSet::OUT, !self.guest.guest_backlog().is_empty());
        let wanted = EpollEvent::new(events, TOKEN_PIPE);
        self.epoll
            .ctl(ControlOperation::Modify, self.pipe.as_raw_fd(), wanted)
            .map_err(|error| failed("epoll", &error))
    }

    fn act(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Hello => {}
            Event::Ready => self.report.send(&FromVmm::Ready { restored: false }),
            Event::Exit(status) => {
                self.report.send(&FromVmm::Exit(*status));
                let now = Instant::now();
                self.deadline = now.checked_add(CLEAR_WAIT).unwrap_or(now);
            }
            Event::Resized(resized) => self.report.send(&FromVmm::Resized(*resized)),
            Event::StartError(text) => {
                return Err(failure(Reason::AppStart, format_args!("{text}")));
            }
        }
        Ok(())
    }

    fn push(&mut self) -> Result<(), Failure> {
        while !self.guest.guest_backlog().is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.pipe, self.guest.guest_backlog(), flags) {
                Ok(sent) => {
                    let waiting = self.guest.guest_backlog();
                    waiting.drain(..sent.min(waiting.len()));
                }
                Err(Errno::INTR) => {}
                // Reading says that the session is over.
                Err(Errno::AGAIN | Errno::PIPE) => break,
                Err(errno) => return Err(failed("the session's pipe", &errno.into())),
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let timeout = if self.guest.phase() == Phase::Running {
            -1
        } else {
            let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
            i32::try_from(left).unwrap_or(i32::MAX).saturating_add(1)
        };
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(failed("epoll", &error)),
        };
        for event in events.iter().take(count) {
            match event.data() {
                TOKEN_CONTROL => self.hear_spawn()?,
                TOKEN_PIPE => self.hear_session()?,
                _ => self.agent.receive(&mut self.guest, event.event_set()),
            }
        }
        Ok(())
    }

    fn hear_session(&mut self) -> Result<(), Failure> {
        let mut chunk = vec![0; CHUNK];
        match recv(&self.pipe, &mut chunk, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => self.over = true,
            Ok((_, count)) => self.guest.receive(chunk.get(..count).unwrap_or_default())?,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(failed("the session's pipe", &errno.into())),
        }
        Ok(())
    }

    /// One message of spawn's. Without spawn and who keeps its end for the next one, nobody accounts for the pod.
    fn hear_spawn(&mut self) -> Result<(), Failure> {
        let not_spawn = || failure(Reason::LaunchDocument, format_args!("a message of nobody's"));
        match receive(&self.report) {
            Ok((Some(FromSpawn::Stop { timeout_ms }), None)) => self.stop(timeout_ms),
            Ok((Some(FromSpawn::Stream), Some(stream))) => {
                self.guest.agent_changed()?;
                let replaced = self.agent.replace(&self.epoll, stream);
                replaced.map_err(|error| failed("the pod's stream", &error))
            }
            // There is no device that would count.
            Ok((Some(FromSpawn::Metrics), None)) => {
                self.report.send(&FromVmm::Metrics(Metrics::NONE));
                Ok(())
            }
            Ok((Some(FromSpawn::Resize { bytes }), None)) => match self.guest.phase() {
                Phase::Running => self.guest.resize(bytes),
                _ => Ok(()),
            },
            Ok(_) => Err(not_spawn()),
            Err(Errno::INTR) => Ok(()),
            Err(_) => Err(failure(Reason::Io, format_args!("spawn is gone"))),
        }
    }

    fn stop(&mut self, timeout_ms: u32) -> Result<(), Failure> {
        match self.guest.phase() {
            Phase::Starting | Phase::Running | Phase::Over => self.guest.stop(timeout_ms),
            _ => {
                Err(failure(Reason::GuestGone, format_args!("stopped before the app was started")))
            }
        }
    }

    fn too_late(&self) -> Result<(), Failure> {
        match self.guest.phase() {
            // EXIT was said; spawn clears away what the runtime did not.
            Phase::Over => exit(0),
            phase => Err(failure(
                Reason::GuestSilent,
                format_args!("phase {phase:?} took longer than {} ms", self.step.as_millis()),
            )),
        }
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    failure(Reason::Io, format_args!("{what}: {error}"))
}
