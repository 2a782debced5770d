//! One pod's life, from `UNIQUE_DONE` to EXIT, as one poll loop with bounded buffers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_ticket::errand::Request;
use casemate_ticket::files::FILES_BYTES_MAX;
use casemate_wire::apps::place_of;
use casemate_wire::frame::{Frame, GuestKind, HostKind, Kind};
use casemate_wire::order::{Conversation, OutOfOrder, Phase};
use casemate_wire::payload::{ErrorCode, Resize, Resized, StartError, Started};
use rustix::event::{PollFd, PollFlags};
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use crate::child::Plan;
use crate::crowd::Crowd;
use crate::failure::{Failure, OrFailure};
use crate::link::{Broken, Inbox, Outbox, poll_for};
use crate::places::Places;
use crate::pod::{self, News, Pod};
use crate::running::{Part, Running};
use crate::site::Site;
use crate::{cgroup, grow, network, process_unsafe, sysctls, volumes};

/// Where a session's apps run: in this machine, or in containers of the host's.
pub trait Machine {
    /// Makes what the apps of a pod share.
    ///
    /// # Errors
    /// What could not be made.
    fn prepare(&self, config: &Config) -> Result<(), Failure>;

    /// Makes the process that becomes the app at `place`, with the content of its files.
    ///
    /// # Errors
    /// Why there is none.
    fn start(&self, place: usize, config: &Config, files: &[u8]) -> Result<Running, Failure>;

    /// Where processes beside the app at `place` are made, health checks among them.
    fn beside(&self, place: usize) -> Site;

    /// All have ended, and nobody was told yet: what outlives them has to be on its disks.
    fn settle(&self, apps: &[App]);

    /// Has the pod's file system take up all of a disk that has `bytes` now.
    fn grow(&self, bytes: u64) -> Resized;
}

impl Machine for Places {
    fn prepare(&self, config: &Config) -> Result<(), Failure> {
        let configure = |network| network::configure(network::CARD, network);
        config.network.as_ref().map_or(Ok(()), configure)?;
        process_unsafe::unshare(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
            .or_failure(ErrorCode::Other, "make namespaces for the pod")?;
        sethostname(config.hostname.as_bytes())
            .or_failure(ErrorCode::Other, "set the host name")?;
        sysctls::apply(&config.sysctls)
    }

    fn start(&self, place: usize, config: &Config, files: &[u8]) -> Result<Running, Failure> {
        let app = config.apps.get(place);
        let app = app.ok_or_else(|| Failure::new(ErrorCode::Config, "there is no such app"))?;
        Running::start(&Plan { app, place, config, files, places: self })
    }

    fn beside(&self, place: usize) -> Site {
        let group = self.cgroup.as_ref().map(|group| cgroup::of_app(group, place));
        let groups: Vec<_> = group.into_iter().collect();
        let oom = groups.first().map(|group| group.join(cgroup::EVENTS));
        let glibc_tunables = self.glibc_tunables.clone();
        Site { groups, oom, glibc_tunables, root: None, adapt: |_| () }
    }

    fn settle(&self, apps: &[App]) {
        volumes::settle(self, apps);
    }

    fn grow(&self, bytes: u64) -> Resized {
        grow::grow(self, bytes)
    }
}

/// Runs one conversation from `UNIQUE_DONE` on; returns when `EXIT` or `ERROR` has left.
///
/// # Errors
/// [`Broken`] when the host broke the protocol or went away. All apps are killed then.
pub fn run(pipe: &OwnedFd, machine: &dyn Machine) -> Result<(), Broken> {
    let mut session = Session {
        machine,
        conversation: Conversation::reseeding(),
        outbox: Outbox::default(),
        pod: None,
        files: Vec::new(),
        crowd: Crowd::default(),
    };
    let answer = session.converse(pipe);
    if let (Err(_), Some(pod)) = (&answer, &mut session.pod) {
        pod.kill();
    }
    answer?;
    session.outbox.flush_all(pipe)
}

/// A descriptor of the poll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// The control pipe.
    Pipe,
    /// Something of the apps.
    Pod(pod::Watched),
    /// Something of a process beside an app.
    Beside(u16, Part),
}

struct Session<'a> {
    machine: &'a dyn Machine,
    conversation: Conversation,
    outbox: Outbox,
    pod: Option<Pod>,
    /// Content of the apps' files, until there is a pod.
    files: Vec<u8>,
    crowd: Crowd,
}

impl Session<'_> {
    fn converse(&mut self, pipe: &OwnedFd) -> Result<(), Broken> {
        let mut inbox = Inbox::default();
        self.say(GuestKind::UniqueDone, &[])?;
        while self.conversation.phase() != Phase::Over {
            for (watched, events) in self.wait(pipe)? {
                match watched {
                    Watched::Pipe if events == PollFlags::OUT => {}
                    Watched::Pipe => self.serve_pipe(pipe, &mut inbox)?,
                    Watched::Beside(session, part) => {
                        self.crowd.serve((session, part), &mut self.outbox)?;
                    }
                    Watched::Pod(watched) => self.serve_pod(watched)?,
                }
            }
            self.look_at_the_clock()?;
            self.outbox.flush_some(pipe.as_fd())?;
        }
        Ok(())
    }

    /// Waits until something can be done, and answers what.
    fn wait(&self, pipe: &OwnedFd) -> Result<Vec<(Watched, PollFlags)>, Broken> {
        let mut interest = PollFlags::IN;
        if self.outbox.pending() > 0 {
            interest |= PollFlags::OUT;
        }
        let mut set = vec![(Watched::Pipe, PollFd::new(pipe, interest))];
        if let Some(pod) = &self.pod {
            pod.watch(&self.outbox, |watched, fd| set.push((Watched::Pod(watched), fd)));
        }
        self.crowd.watch(&self.outbox, |session, part, fd| {
            set.push((Watched::Beside(session, part), fd));
        });
        let pods = self.pod.as_ref().and_then(Pod::deadline);
        let deadline = pods.into_iter().chain(self.crowd.deadline()).min();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let (names, mut fds): (Vec<Watched>, Vec<PollFd<'_>>) = set.into_iter().unzip();
        // A millisecond on top: a timeout that was rounded down would spin until its time.
        poll_for(&mut fds, timeout.map(|time| time.saturating_add(Duration::from_millis(1))))?;
        let ready = names.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn serve_pipe(&mut self, pipe: &OwnedFd, inbox: &mut Inbox) -> Result<(), Broken> {
        inbox.fill(pipe.as_fd())?;
        while let Some(frame) = inbox.next_frame()? {
            self.hear(frame)?;
        }
        Ok(())
    }

    fn hear(&mut self, frame: Frame<'_, HostKind>) -> Result<(), Broken> {
        let Frame { kind, session, payload } = frame;
        if let Some(place) = place_of(session) {
            return self.hear_of_app(place, kind, payload);
        }
        if session != 0 {
            return self.hear_beside(frame);
        }
        self.conversation.host(kind)?;
        match kind {
            HostKind::Files => return self.take_files(payload),
            HostKind::Config => return self.start(payload),
            HostKind::Unique => return Ok(()),
            _ => {}
        }
        // After EXIT or ERROR the host may still speak of a pod that it does not know ended.
        let Some(pod) = &mut self.pod else { return Ok(()) };
        match kind {
            HostKind::Stop => pod.hear_stop(payload),
            HostKind::Resize => {
                let resize = Resize::parse(payload).ok_or(Broken::Payload(kind))?;
                let resized = self.machine.grow(resize.bytes);
                // What it was for may have ended meanwhile; it is said in time, or not at all.
                if self.conversation.phase() != Phase::Running {
                    return Ok(());
                }
                self.say(GuestKind::Resized, resized.encode().as_bytes())
            }
            // Of several apps each has a number of its own.
            _ if pod.config().apps.len() > 1 => Err(Broken::Payload(kind)),
            _ => pod.hear(0, (kind, payload), &mut self.outbox),
        }
    }

    /// A frame with an app's own number, which it has among several alone.
    fn hear_of_app(&mut self, place: usize, kind: HostKind, payload: &[u8]) -> Result<(), Broken> {
        let Some(pod) = self.pod.as_mut().filter(|pod| pod.config().apps.len() > 1) else {
            let phase = self.conversation.phase();
            // Of a pod that could not be started the host may not know yet.
            let is_over = phase == Phase::Over;
            let early = Broken::Order(OutOfOrder { kind: kind.byte(), phase });
            return if is_over { Ok(()) } else { Err(early) };
        };
        pod.hear(place, (kind, payload), &mut self.outbox)
    }

    fn hear_beside(&mut self, frame: Frame<'_, HostKind>) -> Result<(), Broken> {
        let Frame { kind, session, payload } = frame;
        match self.conversation.phase() {
            Phase::Running => {}
            // All ended with the pod, and the host cannot know yet.
            Phase::Over => return Ok(()),
            phase => return Err(Broken::Order(OutOfOrder { kind: kind.byte(), phase })),
        }
        if kind != HostKind::Exec {
            return self.crowd.hear(frame, &mut self.outbox);
        }
        let Some(pod) = &self.pod else { return Ok(()) };
        let asked = Request::parse(payload).or_failure(ErrorCode::Config, "use the request");
        let beside = asked.and_then(|request| {
            let gone = || Failure::new(ErrorCode::Refused, "the app does not run");
            let found = pod.beside(request.app()).ok_or_else(gone)?;
            Ok((request, found))
        });
        match beside {
            Ok((request, (place, app, namespaces))) => {
                let site = self.machine.beside(place);
                let wanted = (session, place, &request);
                self.crowd.exec(wanted, app, namespaces, &site, &mut self.outbox)
            }
            Err(failure) => self.crowd.refuse(session, &failure, &mut self.outbox),
        }
    }

    fn take_files(&mut self, piece: &[u8]) -> Result<(), Broken> {
        let size = self.files.len().saturating_add(piece.len());
        if u64::try_from(size).unwrap_or(u64::MAX) > FILES_BYTES_MAX {
            return Err(Broken::Payload(HostKind::Files));
        }
        self.files.extend_from_slice(piece);
        Ok(())
    }

    fn start(&mut self, config: &[u8]) -> Result<(), Broken> {
        let files = std::mem::take(&mut self.files);
        let prepared = Config::parse(config)
            .or_failure(ErrorCode::Config, "use the configuration")
            .and_then(|config| Pod::new(config, files))
            .and_then(|pod| self.machine.prepare(pod.config()).map(|()| pod));
        match prepared {
            Ok(pod) => {
                self.pod = Some(pod);
                self.start_due()
            }
            Err(failure) => self.say_error(&failure),
        }
    }

    fn start_due(&mut self) -> Result<(), Broken> {
        let Some(pod) = &mut self.pod else { return Ok(()) };
        match pod.start_due(self.machine, &mut self.outbox)? {
            Some(failure) => self.say_error(&failure),
            None => Ok(()),
        }
    }

    fn serve_pod(&mut self, watched: pod::Watched) -> Result<(), Broken> {
        let Some(pod) = &mut self.pod else { return Ok(()) };
        match pod.serve(watched, &mut self.outbox)? {
            None => Ok(()),
            Some(News::Failed(failure)) => self.say_error(&failure),
            Some(News::Started(pid)) => {
                self.say(GuestKind::Started, Started { pid }.encode().as_bytes())?;
                self.pod.as_mut().map_or(Ok(()), |pod| pod.announce(0, pid, &mut self.outbox))
            }
        }
    }

    /// What is due of the apps and of what is beside them; EXIT when all ended and their output is out or held up.
    fn look_at_the_clock(&mut self) -> Result<(), Broken> {
        self.crowd.look_at_the_clock(&mut self.outbox)?;
        let Some(pod) = &mut self.pod else { return Ok(()) };
        if self.conversation.phase() == Phase::Over {
            return Ok(());
        }
        let exit = pod.look_at_the_clock(self.machine, &mut self.crowd, &mut self.outbox)?;
        match exit {
            Some(exit) if self.conversation.phase() == Phase::Running => {
                self.machine.settle(&pod.config().apps);
                self.say(GuestKind::Exit, exit.encode().as_bytes())
            }
            _ => self.start_due(),
        }
    }

    fn say_error(&mut self, failure: &Failure) -> Result<(), Broken> {
        let error = StartError { code: failure.code, text: &failure.text };
        self.say(GuestKind::Error, &error.encode())
    }

    fn say(&mut self, kind: GuestKind, payload: &[u8]) -> Result<(), Broken> {
        self.conversation.guest(kind)?;
        self.outbox.push(kind, payload)
    }
}
