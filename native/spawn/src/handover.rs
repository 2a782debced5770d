//! The end of spawn: with its pods, or leaving them to the next spawn.
//!
//! TERM (INT, HUP) leaves them where somebody keeps their descriptors; there it is a restart or an upgrade. USR2 ends
//! them, and so does every signal where nobody keeps anything: a VM without spawn has nobody to account for it.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, log};

/// How long a stopping spawn waits for its VMs to be gone, or for launches under way.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What a spawn that was told to stop does.
#[derive(Debug)]
pub struct Stopping {
    /// Until when it waits.
    pub until: Instant,
    /// Whether it leaves its pods running.
    hands_over: bool,
}

impl Daemon {
    /// A signal came.
    pub(crate) fn signalled(&mut self) {
        // `struct signalfd_siginfo` begins with the number.
        let mut signal = [0_u8; 128];
        let _ = rustix::io::read(self.signals.as_fd(), &mut signal);
        let number = signal.first_chunk().map_or(0, |number| u32::from_ne_bytes(*number));
        let leave_pods = self.store.is_some() && i32::try_from(number) != Ok(libc::SIGUSR2);
        match &self.stopping {
            None if leave_pods => self.hand_over(),
            // USR2 after TERM: it was meant to be the end of them after all.
            Some(stopping) if leave_pods || !stopping.hands_over => {}
            _ => self.stop_all(),
        }
    }

    fn stop(&mut self, hands_over: bool) {
        let now = Instant::now();
        let until = now.checked_add(STOP_WAIT).unwrap_or(now);
        self.stopping = Some(Stopping { until, hands_over });
        self.listener = None;
        self.kill_all_workers();
    }

    /// No new request, every VM is killed and its end recorded.
    fn stop_all(&mut self) {
        log("stopping: every VM and worker is killed");
        self.stop(false);
        if let Some(store) = &self.store {
            store.remove(crate::store::LISTENER);
        }
        let _ = fs::remove_file(self.config.run_dir.join("spawn.sock"));
        self.kill_pods(|_| true);
    }

    /// Pods run on. Launches come to their answers; whoever waits for anything else asks the next spawn again.
    pub(crate) fn hand_over(&mut self) {
        log("stopping: pods are left to the next spawn");
        self.stop(true);
        self.kill_pods(|pod| pod.identity.is_none());
        let launching: Vec<u64> = self.pods.values().filter_map(|pod| pod.client).collect();
        self.drop_clients(|id, client| !launching.contains(&id) && client.worker.is_none());
    }

    /// Whether everything is done that this spawn had to do.
    pub(crate) fn is_over(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let is_left = |pod: &crate::pods::Pod| {
            stopping.hands_over && pod.identity.is_some() && pod.client.is_none()
        };
        let idle =
            self.pods.values().all(is_left) && self.workers.is_empty() && self.clients.is_empty();
        idle || Instant::now() >= stopping.until
    }
}
