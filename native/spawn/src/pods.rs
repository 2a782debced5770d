//! The VMs that run: their messages, their time limits, their ends; and the requests about them.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use casemate_ticket::json::Value;
use casemate_ticket::spec::{Level, Vmm};
use casemate_wire::control::{FromSpawn, FromVmm, VMM_MESSAGE_MAX};
use rustix::net::SocketType;

use crate::cgroup::Cgroup;
use crate::clients::Answer;
use crate::counters::{Waiting, paused};
use crate::daemon::{Daemon, Source, log};
use crate::ending;
use crate::jail::{self, pair};
use crate::ledger::Ledger;
use crate::packets::{self, Packet};
use crate::pod::{Exited, Facts, Identity, Killed, Said, Status, Verdict, conclude};
use crate::poller::Watched;
use crate::refusal::{Refusal, Result};
use crate::resize::{Resizing, ScratchDisk};
use crate::router::state::Way;
use crate::steps;
use crate::template::Taken;
use crate::usage::Usage;

/// Exited pods whose status is kept.
const EXITED_MAX: usize = 1024;
/// How long a status is kept at least, once there are too many.
const EXITED_KEPT: Duration = Duration::from_hours(1);
/// How long a VMM may take to end after it said that it will.
pub const ENDING_WAIT: Duration = Duration::from_secs(5);

/// One VM.
#[derive(Debug)]
pub struct Pod {
    /// Who it is; `None` for a template being built.
    pub identity: Option<Identity>,
    /// Isolation level.
    pub level: Level,
    /// Virtual CPUs and MiB.
    pub shape: (u32, u32),
    /// Filters the VMM must install.
    pub vmm: Vmm,
    /// Its pid.
    pub pid: i32,
    /// Its user id.
    pub uid: u32,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Where the next spawn finds what it must know; `None` for a template being built, which nobody takes over.
    pub ledger: Option<Rc<Ledger>>,
    /// Whether its program runs, as far as is known.
    pub launched: bool,
    /// The process: readable when it has ended.
    pub end: Watched<Source>,
    /// Control socket, until the VMM closes it.
    pub control: Option<Watched<Source>>,
    /// The jail's channel, until exec.
    pub jail: Option<Watched<Source>>,
    /// The connection that waits for exec.
    pub client: Option<u64>,
    /// The agent's end of the pod stream, until it was sent.
    pub stream: Option<OwnedFd>,
    /// All of it stands still.
    pub paused: bool,
    /// Its place on its tenant's bridge, if it has one.
    pub way: Option<Way>,
    /// Its scratch disk; `None` for a template.
    pub scratch: Option<ScratchDisk>,
    /// Names of its tenant's volumes that it has.
    pub volumes: Vec<String>,
    /// A resize that its guest has not answered.
    pub resizing: Option<Resizing>,
    /// What the VMM said.
    pub said: Said,
    /// Who waits for its counters.
    pub waiting: Waiting,
    /// Template memfds that the VMM sent.
    pub template: Option<Taken>,
    /// The step of the jail that failed.
    pub jail_failure: Option<String>,
    /// Why spawn killed it.
    pub killed: Option<Killed>,
    /// By when the guest must be ready.
    pub boot_until: Option<Instant>,
    /// By when it must have stopped.
    pub stop_until: Option<Instant>,
    /// By when a VMM that says it ends must have ended.
    pub end_until: Option<Instant>,
    /// The system call that its filter stopped, from the kernel's log.
    pub stopped_call: Option<i64>,
    /// A VMM killed by its filter: its end, until when to look for the call's name, when to look next.
    pub autopsy: Option<(Status, Instant, Instant)>,
}

impl Pod {
    /// When something is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        if let Some((_, _, next)) = self.autopsy {
            return Some(next);
        }
        let resize = self.resizing.map(|resizing| resizing.until);
        let until = [self.boot_until, self.stop_until, self.end_until, self.waiting.until, resize];
        until.into_iter().flatten().min()
    }

    /// Its guest does not run its app yet.
    pub(crate) const fn is_starting(&self) -> bool {
        self.jail.is_some() || self.boot_until.is_some()
    }

    /// Kills it; the first reason is the one that is told, by the next spawn as well.
    pub fn kill(&mut self, why: Killed) {
        self.killed = self.killed.or(Some(why));
        self.write_down();
        steps::at("killing");
        jail::kill(self.end.as_fd());
        self.go_on();
        (self.boot_until, self.stop_until, self.end_until) = (None, None, None);
    }

    /// Ends a pause, if there is one. After SIGKILL no instruction of the process is left to run, but version 1 of cgroups
    /// delivers it only now.
    fn go_on(&mut self) {
        if self.paused {
            self.paused = false;
            if let Err(error) = self.cgroup.pause(false) {
                log(&format!("a paused pod cannot go on: {error}"));
            }
        }
    }

    fn hear(&mut self, packet: Packet) {
        let builds = self.identity.is_none();
        let expected = FromVmm::parse(&packet.bytes).map_or(0, |message| message.descriptors());
        if packet.is_cut || packet.descriptors.len() != expected {
            self.kill(Killed::Protocol);
            return;
        }
        let heard = self.said.heard.len();
        match self.said.hear(&packet.bytes, &self.vmm, builds) {
            Verdict::Fine => {}
            Verdict::Ready => self.boot_until = None,
            Verdict::Ending => {
                self.boot_until = None;
                self.end_until = Instant::now().checked_add(ENDING_WAIT);
            }
            Verdict::Template { state_size, memory_size } => {
                self.template = Taken::new(packet.descriptors, state_size, memory_size);
                self.end_until = Instant::now().checked_add(ENDING_WAIT);
            }
            Verdict::Kill(why) => self.kill(why),
        }
        if self.said.heard.len() > heard {
            self.launched = true;
            self.write_down();
            steps::at("heard");
        }
    }

    /// Takes all packets that wait; a VMM cannot send more than its socket holds before it must stop.
    /// Each is written down before it is taken off the socket: a spawn that dies in between hears it again.
    fn drain_control(&mut self) {
        while let Some(control) = &self.control {
            match packets::peek(control.as_fd(), VMM_MESSAGE_MAX) {
                Ok(Some(packet)) if self.killed.is_none() => self.hear(packet),
                // Nothing a VMM says after it was condemned counts, but it must not fill its socket either.
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    self.control = None;
                    return;
                }
            }
            if let Some(control) = &self.control {
                let _ = packets::receive(control.as_fd(), VMM_MESSAGE_MAX);
            }
        }
    }

    /// Reads the jail's channel: a report of failure, or its end. Says whether that is decided.
    fn read_jail(&mut self) -> bool {
        let Some(channel) = &self.jail else { return true };
        let mut report = [0_u8; 5];
        match rustix::io::read(channel.as_fd(), &mut report) {
            Ok(count) if count > 0 => {
                self.jail_failure = Some(jail::failure(report.get(..count).unwrap_or_default()));
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            _ => self.launched = true,
        }
        self.jail = None;
        self.write_down();
        true
    }
}

impl Daemon {
    /// The jail is made, or a step failed; in the second case the process's end says the rest.
    pub(crate) fn pod_jail(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        if pod.read_jail() && pod.jail_failure.is_none() {
            self.answer_launch(id);
        }
    }

    fn answer_launch(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        let answer = Answer::new(vec![("pid", Value::Integer(pod.pid.into()))]);
        if let (Some(client), Some(stream)) = (pod.client.take(), pod.stream.take()) {
            self.answer(client, Ok(answer.with(stream)));
        }
    }

    /// The VMM said something.
    pub(crate) fn pod_control(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        pod.drain_control();
        self.take_template(id);
        self.answer_metrics(id);
        self.answer_resize(id);
    }

    /// The VMM has ended.
    pub(crate) fn pod_end(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        if pod.autopsy.is_some() {
            return;
        }
        let Some(status) = ending::status(pod.end.as_fd()) else { return };
        pod.drain_control();
        pod.read_jail();
        self.take_template(id);
        if matches!(status, Status::Unknown | Status::Signal(libc::SIGSYS)) {
            self.begin_autopsy(id, status);
        } else {
            self.conclude_pod(id, status);
        }
    }

    /// Forgets the living and remembers the dead: in the ledger first, so that the end is known from then on whatever
    /// becomes of spawn.
    pub(crate) fn conclude_pod(&mut self, id: u64, status: Status) {
        self.answer_launch_that_ended(id);
        let Some(mut pod) = self.pods.remove(&id) else { return };
        for client in pod.waiting.take() {
            self.answer(client, Err(not_running()));
        }
        self.give_up_resize(pod.resizing, true);
        let oom = pod.cgroup.was_oom_killed();
        let syscall = pod.stopped_call;
        let facts = Facts { said: &pod.said, killed: pod.killed, status, oom, syscall };
        let exit = conclude(&facts).of(pod.level);
        pod.write_end(&exit);
        steps::at("concluded");
        ending::reap(pod.end.as_fd());
        self.give_back(pod.level, pod.uid, pod.cgroup);
        self.disconnect(pod.identity.as_ref());
        let Some(identity) = pod.identity else {
            return self.finish_build(pod.shape, pod.jail_failure, &exit);
        };
        self.let_go(&identity.pod);
        if pod.launched {
            self.exited.push_back(Exited { identity, pid: pod.pid, exit, at: Instant::now() });
        } else {
            // Nothing ever ran in it: the refusal of the launch has told everything.
            self.ledger.remove(&identity.pod);
        }
    }

    fn answer_launch_that_ended(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        match (&pod.jail_failure, pod.client) {
            (Some(sentence), Some(client)) => {
                let refusal = Refusal::new("JAIL_FAILED", sentence.clone());
                pod.client = None;
                self.answer(client, Err(refusal));
            }
            _ => self.answer_launch(id),
        }
    }

    /// Kills what is over its time.
    pub(crate) fn pods_due(&mut self, now: Instant) {
        let mut look = false;
        let (mut given_up, mut unanswered) = (Vec::new(), Vec::new());
        for (id, pod) in &mut self.pods {
            unanswered.push(pod.take_late_resize(now));
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            match pod.autopsy {
                Some((status, until, _)) if until <= now => given_up.push((*id, status)),
                Some((status, until, next)) if next <= now => {
                    pod.autopsy = Some((status, until, crate::autopsy::next(now)));
                    look = true;
                }
                None if is_due(pod.boot_until) => pod.kill(Killed::BootTimeout),
                None if is_due(pod.stop_until) => pod.kill(Killed::StopTimeout),
                None if is_due(pod.end_until) => pod.kill(Killed::Lingering),
                Some(_) | None => {}
            }
        }
        if look {
            self.look_for_kills();
        }
        for (id, status) in given_up {
            self.conclude_pod(id, status);
        }
        for resizing in unanswered {
            self.give_up_resize(resizing, false);
        }
    }

    /// Those VMs, when spawn ends.
    pub(crate) fn kill_pods(&mut self, which: impl Fn(&Pod) -> bool) {
        for pod in self.pods.values_mut().filter(|pod| pod.autopsy.is_none() && which(pod)) {
            pod.kill(Killed::Shutdown);
        }
    }

    /// Whether a launch could be recorded to its end.
    pub(crate) fn check_room(&mut self) -> Result<()> {
        if self.stopping.is_some() {
            return Err(Refusal::new("SPAWN_STOPPING", "spawn is being stopped"));
        }
        let old = |pod: &Exited| pod.at.elapsed() > EXITED_KEPT;
        while self.exited.len() >= EXITED_MAX && self.exited.front().is_some_and(old) {
            if let Some(exited) = self.exited.pop_front() {
                self.ledger.remove(&exited.identity.pod);
            }
        }
        if self.exited.len() >= EXITED_MAX {
            let message =
                format!("{EXITED_MAX} exited pods wait to be forgotten; forget some first");
            return Err(Refusal::new("PODS_NOT_FORGOTTEN", message));
        }
        Ok(())
    }

    /// Whether the launch id is taken.
    pub(crate) fn knows_pod(&self, pod: &str) -> bool {
        self.find_pod(pod).is_some() || self.exited.iter().any(|exited| exited.identity.pod == pod)
    }

    fn find_pod(&self, pod: &str) -> Option<u64> {
        let is_it = |identity: &Identity| identity.pod == pod;
        let found = self.pods.iter().find(|(_, pod)| pod.identity.as_ref().is_some_and(is_it));
        found.map(|(id, _)| *id)
    }

    pub(crate) fn running(&mut self, pod: &str) -> Result<&mut Pod> {
        let id = self.find_pod(pod);
        id.and_then(|id| self.pods.get_mut(&id))
            .filter(|pod| pod.autopsy.is_none())
            .ok_or_else(not_running)
    }

    /// `kill`.
    pub(crate) fn kill_pod(&mut self, pod: &str) -> Result<Answer> {
        self.running(pod)?.kill(Killed::Asked);
        Ok(Answer::new(vec![]))
    }

    /// `stop`: the earliest of several time limits holds.
    pub(crate) fn stop_pod(&mut self, pod: &str, timeout_ms: u32) -> Result<Answer> {
        let pod = self.running(pod)?;
        let until = Instant::now().checked_add(Duration::from_millis(timeout_ms.into()));
        pod.go_on();
        pod.stop_until = [pod.stop_until, until].into_iter().flatten().min();
        pod.write_down();
        if let Some(control) = &pod.control {
            // A VMM that does not take it is killed all the same.
            let _ = packets::send(control.as_fd(), FromSpawn::Stop { timeout_ms }, None);
        }
        Ok(Answer::new(vec![]))
    }

    /// `pause`: the kernel stops the whole VMM, so that neither processors nor devices go on.
    pub(crate) fn pause_pod(&mut self, pod: &str) -> Result<Answer> {
        let pod = self.running(pod)?;
        // One that is to die must not stand still: on version 1 of cgroups it would not take the signal.
        let is_ending = pod.stop_until.is_some() || pod.end_until.is_some() || pod.killed.is_some();
        if pod.is_starting() || is_ending {
            let message = "the pod is being started or stopped; only one that runs can be paused";
            return Err(Refusal::new("POD_BUSY", message));
        }
        pod.cgroup.pause(true).map_err(|error| {
            let message = format!("this host cannot pause pods: {error}; mount the cgroup freezer");
            Refusal::new("PAUSE_NOT_AVAILABLE", message)
        })?;
        pod.paused = true;
        for client in pod.waiting.take() {
            self.answer(client, Err(paused()));
        }
        Ok(Answer::new(vec![]))
    }

    /// `resume`.
    pub(crate) fn resume_pod(&mut self, pod: &str) -> Result<Answer> {
        self.running(pod)?.go_on();
        Ok(Answer::new(vec![]))
    }

    /// `usage`.
    pub(crate) fn usage_of_pod(&mut self, pod: &str) -> Result<Answer> {
        let pod = self.running(pod)?;
        Ok(Answer::new(vec![(
            "usage",
            Usage::of(&pod.cgroup, pod.pid, pod.scratch.as_ref()).to_value(),
        )]))
    }

    /// `adopt`: a fresh pod stream, one end to the VMM, one to the agent.
    pub(crate) fn adopt_pod(&mut self, pod: &str) -> Result<Answer> {
        let pod = self.running(pod)?;
        let (ours, theirs) = pair(SocketType::STREAM).map_err(crate::launch::no_resources)?;
        let control = pod.control.as_ref().ok_or_else(busy)?;
        packets::send(control.as_fd(), FromSpawn::Stream, Some(theirs)).map_err(|_| busy())?;
        Ok(Answer::new(vec![("pid", Value::Integer(pod.pid.into()))]).with(ours))
    }

    /// `forget`.
    pub(crate) fn forget_pod(&mut self, pod: &str) -> Result<Answer> {
        if self.find_pod(pod).is_some() {
            return Err(Refusal::new(
                "POD_RUNNING",
                "this pod runs; kill it before it is forgotten",
            ));
        }
        let before = self.exited.len();
        self.exited.retain(|exited| exited.identity.pod != pod);
        if self.exited.len() == before {
            return Err(Refusal::new("POD_UNKNOWN", "no pod of this launch id has run"));
        }
        self.ledger.remove(pod);
        Ok(Answer::new(vec![]))
    }
}

pub fn not_running() -> Refusal {
    Refusal::new("POD_NOT_RUNNING", "no pod of this launch id runs")
}

pub fn busy() -> Refusal {
    Refusal::new("POD_BUSY", "the VMM takes no message now, or does not answer; ask again")
}
