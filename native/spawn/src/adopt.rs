//! Taking over from the spawn before: its pods run on, and this one goes on where it was.
//!
//! A pod is taken over when three things are there and fit each other: what was written down of it, its three descriptors
//! from the store, and its cgroup. Everything else that is left in groups of ours is killed before anybody is served. A
//! pod of which something is missing is killed as well, and its end is on record; of one that cannot even be named the
//! agent records that it is lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use casemate_wire::control::FromSpawn;

use crate::cgroup::{Cgroup, Cgroups};
use crate::counters::Waiting;
use crate::daemon::{Daemon, Source, log};
use crate::ending;
use crate::jail;
use crate::ledger::{Entry, Ledger};
use crate::packets;
use crate::pod::{Exited, Identity, PodExit, Said};
use crate::pods::{ENDING_WAIT, Pod};
use crate::poller::Interest;
use crate::refusal::{Refusal, Result};
use crate::resize::{ScratchDisk, is_scratch};
use crate::steps;
use crate::store::{self, LISTENER, pod_name, pod_of};

/// What the store had, by name.
pub type Descriptors = BTreeMap<String, Vec<OwnedFd>>;

/// A pod that is taken over.
#[derive(Debug)]
struct Found {
    entry: Entry,
    said: Said,
    control: OwnedFd,
    end: OwnedFd,
    scratch: OwnedFd,
    cgroup: Cgroup,
}

/// What the spawn before left.
#[derive(Debug, Default)]
pub struct Inheritance {
    found: Vec<Found>,
    /// Pods that ended under it, and were not forgotten.
    ended: Vec<Entry>,
    /// Pods that cannot be taken over, and why.
    lost: Vec<(Entry, &'static str)>,
    /// Names of descriptors that nobody needs.
    surplus: Vec<String>,
    listener: Option<OwnedFd>,
}

impl Inheritance {
    /// Puts together what belongs together.
    fn sort(
        entries: Vec<Entry>,
        mut descriptors: Descriptors,
        cgroups: &Cgroups,
        network_is_kept: bool,
    ) -> Self {
        let mut sorted = Self::default();
        let listener = descriptors.remove(LISTENER).unwrap_or_default();
        if let Ok([listener]) = <[OwnedFd; 1]>::try_from(listener) {
            sorted.listener = Some(listener);
        }
        for entry in entries {
            let own = descriptors.remove(&pod_name(&entry.identity.pod)).unwrap_or_default();
            if entry.exit.is_some() {
                sorted.surplus.push(pod_name(&entry.identity.pod));
                sorted.ended.push(entry);
                continue;
            }
            let is_taken = |found: &Found| found.entry.uid == entry.uid;
            let found = if sorted.found.iter().any(is_taken) {
                Err("two pods claim one user id")
            } else if entry.way.is_some() && !network_is_kept {
                Err("its network is gone")
            } else {
                fit(&entry, own, cgroups)
            };
            match found {
                Ok((said, [control, end, scratch], cgroup)) => {
                    sorted.found.push(Found { entry, said, control, end, scratch, cgroup });
                }
                Err(why) => {
                    sorted.surplus.push(pod_name(&entry.identity.pod));
                    sorted.lost.push((entry, why));
                }
            }
        }
        // Of pods that nothing was written down of, or what is no pod's.
        for name in descriptors.into_keys() {
            let whose = pod_of(&name).unwrap_or("nobody");
            log(&format!("descriptors were kept of {whose}, of whom nothing is known"));
            sorted.surplus.push(name);
        }
        sorted
    }

    /// Names of the groups that are taken over.
    pub fn groups(&self) -> Vec<&str> {
        self.found.iter().map(|found| found.entry.identity.pod.as_str()).collect()
    }

    /// Whether a pod may have ended before this spawn looked.
    pub fn has_pods(&self) -> bool {
        !self.found.is_empty()
    }

    /// The listening socket of the spawn before, with who waits on it, if it is where this one's is to be.
    pub fn listener(&mut self, path: &std::path::Path) -> Option<OwnedFd> {
        self.listener.take().filter(|fd| store::listens_at(fd.as_fd(), path))
    }
}

/// Control socket, pidfd, scratch disk.
type Kept = [OwnedFd; 3];
type Fitting = (Said, Kept, Cgroup);

fn fit(
    entry: &Entry,
    descriptors: Vec<OwnedFd>,
    cgroups: &Cgroups,
) -> std::result::Result<Fitting, &'static str> {
    let count = descriptors.len();
    let [control, end, scratch] = sort_kept(descriptors).ok_or(if count == 0 {
        "nobody had kept its descriptors"
    } else {
        "other descriptors were kept than a pod has"
    })?;
    // Once it is reaped it has no number, and is in no group.
    if ending::pid(end.as_fd()).is_some_and(|pid| pid != entry.pid) {
        return Err("the pidfd that was kept is another process's");
    }
    let cgroup = cgroups.find(&entry.identity.pod);
    let runs = ending::status(end.as_fd()).is_none();
    let is_apart = |cgroup: &Cgroup| runs && !cgroup.holds(entry.pid);
    let Some(cgroup) = cgroup.filter(|cgroup| !is_apart(cgroup)) else {
        // Nobody else ends what is in no group of ours.
        jail::kill(end.as_fd());
        return Err("its process is not in its cgroup");
    };
    let said = Said::replay(&entry.heard, &entry.vmm).ok_or("no VMM says what it is said to")?;
    Ok((said, [control, end, scratch], cgroup))
}

/// By what they are: a keeper need not keep their order.
fn sort_kept(mut descriptors: Vec<OwnedFd>) -> Option<Kept> {
    let mut take = |is_it: fn(BorrowedFd<'_>) -> bool| {
        let at = descriptors.iter().position(|fd| is_it(fd.as_fd()))?;
        Some(descriptors.swap_remove(at))
    };
    let kept = [take(store::is_control)?, take(ending::is_pidfd)?, take(is_scratch)?];
    descriptors.is_empty().then_some(kept)
}

impl Pod {
    /// What the next spawn needs to know; `None` for a template being built.
    fn entry(&self) -> Option<Entry> {
        Some(Entry {
            identity: self.identity.clone()?,
            level: self.level,
            shape: self.shape,
            vmm: self.vmm.clone(),
            pid: self.pid,
            uid: self.uid,
            way: self.way.clone(),
            scratch: self.scratch.as_ref()?.size,
            volumes: self.volumes.clone(),
            launched: self.launched,
            heard: self.said.heard.clone(),
            killed: self.killed,
            boot_until: self.boot_until,
            stop_until: self.stop_until,
            exit: None,
        })
    }

    /// Writes down what has changed. It goes on without: a pod must be stopped and killed without room on a disk.
    pub fn write_down(&self) {
        self.write(None);
    }

    /// Writes down how it ended.
    pub fn write_end(&self, exit: &PodExit) {
        self.write(Some(exit.clone()));
    }

    fn write(&self, exit: Option<PodExit>) {
        let (Some(ledger), Some(entry)) = (&self.ledger, self.entry()) else { return };
        if let Err(error) = ledger.write(&Entry { exit, ..entry }) {
            log(&format!("a pod could not be written down for the next spawn: {error}"));
        }
    }
}

impl Daemon {
    /// Writes a new pod down and has its descriptors kept, in this order and before it is let into its jail: what the
    /// next spawn does not find described has not run.
    pub(crate) fn bequeath(&self, entry: &Entry, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        steps::at("cloned");
        self.ledger.write(entry).map_err(|error| {
            let message = format!(
                "the pod could not be written down: {error}; make room in the run directory"
            );
            Refusal::new("SPAWN_STORAGE", message)
        })?;
        steps::at("written");
        let Some(store) = &self.store else { return Ok(()) };
        let kept = store.put(&pod_name(&entry.identity.pod), descriptors);
        steps::at("stored");
        kept.map_err(crate::launch::no_resources)
    }

    /// A launch that came to nothing.
    pub(crate) fn forget_launch(&self, identity: Option<&Identity>) {
        if let Some(identity) = identity {
            self.ledger.remove(&identity.pod);
            self.let_go(&identity.pod);
        }
    }

    /// The pod's descriptors need not be kept any longer.
    pub(crate) fn let_go(&self, pod: &str) {
        if let Some(store) = &self.store {
            store.remove(&pod_name(pod));
        }
    }

    /// Goes on with what the spawn before had. What it left running beside that is dead by now.
    ///
    /// # Errors
    /// When a pod cannot be watched. It and all others stay in the store for the next try, and nobody is served before:
    /// their user ids would be given to others.
    pub(crate) fn take_over(&mut self, inheritance: Inheritance) -> std::io::Result<()> {
        let Inheritance { found, ended, lost, surplus, .. } = inheritance;
        if let Some(store) = &self.store {
            for name in &surplus {
                store.remove(name);
            }
        }
        for entry in ended {
            self.remember(entry);
        }
        for (entry, why) in lost {
            let pod = &entry.identity.pod;
            log(&format!("pod {pod} could not be taken over and was ended: {why}"));
            if entry.launched {
                let exit = Some(PodExit::not_taken_over(why));
                let entry = Entry { exit, ..entry };
                if let Err(error) = self.ledger.write(&entry) {
                    log(&format!("the end of a pod could not be written down: {error}"));
                }
                self.remember(entry);
            } else {
                self.ledger.remove(pod);
            }
        }
        if let Ok(networks) = &mut self.networks {
            let ways = found.iter().filter_map(|found| {
                let Identity { pod, tenant, .. } = &found.entry.identity;
                Some((pod.clone(), tenant.clone(), found.entry.way.clone()?))
            });
            networks.take_over(ways.collect(), self.config.uplink.clone());
        }
        let count = found.len();
        for found in found {
            self.take_pod_over(found)?;
        }
        if count > 0 {
            log(&format!("took {count} pods over"));
        }
        Ok(())
    }

    fn remember(&mut self, entry: Entry) {
        let Entry { identity, pid, exit, .. } = entry;
        let exited = exit.map(|exit| Exited { identity, pid, exit, at: Instant::now() });
        self.exited.extend(exited);
    }

    fn take_pod_over(&mut self, found: Found) -> std::io::Result<()> {
        let Found { entry, said, control, end, scratch, cgroup } = found;
        let id = self.fresh_id();
        let watch = |fd, source| self.poller.watch(fd, Interest::IN, source);
        let end = watch(end, Source::PodEnd(id))?;
        let control = watch(control, Source::PodControl(id))?;
        self.ids(entry.level).reserve(entry.uid);
        let ending = said.is_ending().then(|| Instant::now().checked_add(ENDING_WAIT)).flatten();
        let mut pod = Pod {
            identity: Some(entry.identity),
            level: entry.level,
            shape: entry.shape,
            vmm: entry.vmm,
            pid: entry.pid,
            uid: entry.uid,
            paused: cgroup.is_paused(),
            way: entry.way,
            scratch: Some(ScratchDisk { file: scratch, size: entry.scratch }),
            volumes: entry.volumes,
            resizing: None,
            cgroup,
            ledger: Some(Rc::clone(&self.ledger)),
            launched: entry.launched,
            end,
            control: Some(control),
            jail: None,
            client: None,
            stream: None,
            said,
            waiting: Waiting::default(),
            template: None,
            jail_failure: None,
            killed: entry.killed,
            boot_until: entry.boot_until,
            stop_until: entry.stop_until,
            end_until: ending,
            stopped_call: None,
            autopsy: None,
        };
        pod.go_on_ending();
        self.pods.insert(id, pod);
        Ok(())
    }
}

impl Pod {
    /// Does again what the spawn before may have written down and not done.
    fn go_on_ending(&mut self) {
        if let Some(why) = self.killed {
            return self.kill(why);
        }
        let Some(until) = self.stop_until else { return };
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let timeout_ms = u32::try_from(left).unwrap_or(u32::MAX);
        if let Some(control) = &self.control {
            // A VMM that does not take it is killed all the same.
            let _ = packets::send(control.as_fd(), FromSpawn::Stop { timeout_ms }, None);
        }
    }
}

/// Everything that was written down, and the descriptors that belong to it.
///
/// # Errors
/// When the directory of the ledger cannot be read.
pub fn inheritance(
    ledger: &Ledger,
    descriptors: Descriptors,
    cgroups: &Cgroups,
    network_is_kept: bool,
) -> std::io::Result<Inheritance> {
    Ok(Inheritance::sort(ledger.read()?, descriptors, cgroups, network_is_kept))
}
