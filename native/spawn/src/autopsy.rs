//! The system call for which a VMM was killed: the kernel writes it into its log, by another thread, a moment later.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, log};
use crate::pod::Status;
use crate::poller::Interest;

/// How long to look for the kernel's audit line, and how often.
const AUTOPSY_WAIT: Duration = Duration::from_millis(500);
const AUTOPSY_EVERY: Duration = Duration::from_millis(10);

/// When to look again.
pub fn next(now: Instant) -> Instant {
    now.checked_add(AUTOPSY_EVERY).unwrap_or(now)
}

impl Daemon {
    /// Looks for the line of a VMM that its filter killed, or that may have been: the pod is concluded when it is found,
    /// or when it was looked for long enough.
    pub(crate) fn begin_autopsy(&mut self, id: u64, status: Status) {
        let now = Instant::now();
        let until = now.checked_add(AUTOPSY_WAIT).unwrap_or(now);
        if let Some(pod) = self.pods.get_mut(&id) {
            (pod.boot_until, pod.stop_until, pod.end_until) = (None, None, None);
            pod.autopsy = Some((status, until, now));
            // Its end stays readable, and is known.
            let _ = pod.end.change(Interest::empty());
        }
        self.look_for_kills();
    }

    /// Reads the kernel's log; every pod under autopsy whose line is there is concluded. A line can
    /// come before the end of its VMM was noticed, so it is kept with the pod; those of other processes
    /// are passed over.
    pub(crate) fn look_for_kills(&mut self) {
        let kills = match self.kmsg.as_ref().map(crate::kmsg::Kmsg::seccomp_kills) {
            Some(Ok(kills)) => kills,
            Some(Err(error)) => {
                log(&format!("/dev/kmsg cannot be read: {error}"));
                self.kmsg = None;
                Vec::new()
            }
            None => Vec::new(),
        };
        for kill in kills {
            let is_it = |pod: &&mut crate::pods::Pod| (pod.pid, pod.uid) == (kill.pid, kill.uid);
            if let Some(pod) = self.pods.values_mut().find(is_it) {
                pod.stopped_call = Some(kill.call);
            }
        }
        let is_dead = |pod: &crate::pods::Pod| pod.autopsy.is_some() && pod.stopped_call.is_some();
        let dead = self.pods.iter().filter(|(_, pod)| is_dead(pod)).map(|(id, _)| *id);
        for id in dead.collect::<Vec<_>>() {
            // The line says it where the kernel keeps no status.
            self.conclude_pod(id, Status::Signal(libc::SIGSYS));
        }
    }
}
