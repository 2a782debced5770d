//! Counters of VMs: who asks for them, and how long they wait. A VMM answers when its device thread comes to it, which a
//! guest can delay and a VMM that was taken over need not do at all.

use std::time::{Duration, Instant};

use casemate_wire::control::FromSpawn;
use std::os::fd::AsFd;

use crate::answers;
use crate::daemon::Daemon;
use crate::packets;
use crate::pod::Question;
use crate::pods::{busy, not_running};
use crate::refusal::{Refusal, Result};

/// Connections that may wait for one VM's counters, and for all VMs'. The others are for launches, stops and lists.
const WAITING_MAX: usize = 4;
const WAITING_MAX_OF_ALL: usize = 32;
/// How long they wait.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Connections that wait for the counters of a VM.
#[derive(Debug, Default)]
pub struct Waiting {
    clients: Vec<u64>,
    /// By when the first of them is given up, and the others with it.
    pub until: Option<Instant>,
}

impl Waiting {
    /// Takes all of them.
    pub fn take(&mut self) -> Vec<u64> {
        self.until = None;
        std::mem::take(&mut self.clients)
    }
}

/// What is said of a pod that stands still.
pub fn paused() -> Refusal {
    Refusal::new("POD_PAUSED", "the pod is paused and counts nothing; resume it first")
}

impl Daemon {
    /// `metrics`: answered when the VMM has. Several who ask meanwhile share one answer.
    pub(crate) fn ask_metrics(&mut self, client: u64, pod: &str) -> Result<()> {
        let waiting: usize = self.pods.values().map(|pod| pod.waiting.clients.len()).sum();
        let pod = self.running(pod)?;
        if pod.paused {
            return Err(paused());
        }
        if waiting >= WAITING_MAX_OF_ALL || pod.waiting.clients.len() >= WAITING_MAX {
            return Err(busy());
        }
        if pod.said.metrics == Question::None {
            let control = pod.control.as_ref().ok_or_else(not_running)?;
            packets::send(control.as_fd(), FromSpawn::Metrics, None).map_err(|_| busy())?;
            pod.said.metrics = Question::Asked;
        }
        pod.waiting.clients.push(client);
        pod.waiting.until = pod.waiting.until.or_else(|| Instant::now().checked_add(ANSWER_WAIT));
        Ok(())
    }

    /// Passes an answer of the VMM on.
    pub(crate) fn answer_metrics(&mut self, id: u64) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        let Question::Answered(metrics) = &pod.said.metrics else { return };
        let metrics = metrics.clone();
        pod.said.metrics = Question::None;
        for client in pod.waiting.take() {
            self.answer(client, Ok(answers::metrics(&metrics)));
        }
    }

    /// Those who waited long enough; the VMM's answer, if it comes, is for who asks next.
    pub(crate) fn metrics_due(&mut self, now: Instant) {
        let is_due = |until: &Instant| *until <= now;
        let due =
            self.pods.values_mut().filter(|pod| pod.waiting.until.as_ref().is_some_and(is_due));
        let clients: Vec<u64> = due.flat_map(|pod| pod.waiting.take()).collect();
        for client in clients {
            self.answer(client, Err(busy()));
        }
    }
}
