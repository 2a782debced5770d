//! Launching a pod below level vm: what takes the place of KVM, kernel and VMM in a launch.

use std::os::fd::{AsFd, OwnedFd};

use casemate_ticket::bytes::Digest;
use casemate_ticket::container::Container;
use casemate_ticket::document::LaunchDocument;
use casemate_ticket::spec::Vmm;
use casemate_ticket::ticket::Admitted;
use rustix::fs::{Mode, OFlags};

use crate::cgroup::Cgroup;
use crate::config::CONTAINER_IDS;
use crate::daemon::Daemon;
use crate::host_paths::permit;
use crate::jail::{Jailed, kill_and_reap};
use crate::launch::{Plan, no_resources, same_host};
use crate::launch_files::Files;
use crate::network::refuse;
use crate::pod::Identity;
use crate::refusal::{Refusal, Result};
use crate::resize::{FREE_BYTES_MIN, free_bytes};
use crate::router::pairs::PAIR;
use crate::sparse;
use crate::starter::{Order, Starter};
use crate::volumes::attached_names;

impl Daemon {
    /// Everything that can refuse; the ticket is spent when this returns.
    pub(crate) fn plan_container(
        &self,
        admitted: &Admitted,
        container: Container,
        document: &LaunchDocument,
        Files { image, log, content }: Files,
    ) -> Result<Plan> {
        let spec = &admitted.spec;
        let facts = &self.containers()?.facts;
        same_host(&[
            ("container.bundle", container.bundle == facts.bundle),
            ("container.digest", container.digest == facts.monitor),
            ("container.runtime", container.runtime == facts.runtime),
            ("scratch", spec.scratch.begins_as(&self.assets.scratch_file)),
        ])?;
        self.check_new(spec)?;
        permit(&self.config.host_paths, spec)?;
        let copy = sparse::unnamed(&self.config.state_dir).map_err(no_resources)?;
        let free = free_bytes(&copy).map_err(no_resources)?;
        if free.saturating_sub(spec.image.size) < FREE_BYTES_MIN {
            let message = format!(
                "the host's disk has {free} bytes left, a container takes a copy of its image, and {FREE_BYTES_MIN} stay free"
            );
            return Err(Refusal::new("HOST_FULL", message));
        }
        let (scratch, kept) = self.scratch_disk(spec)?;
        let volumes = self.attach_volumes(spec)?;
        self.spent.spend(&admitted.leaf_hash, admitted.deadline_ns)?;
        // What the monitor says of itself in STARTED.
        let vmm = Vmm {
            digest: container.digest,
            filter_control: container.bundle,
            filter_io: spec.seccomp_digest(),
            filter_vcpu: Digest(spec.image.root),
        };
        Ok(Plan {
            level: spec.level,
            identity: Some(Identity::of(spec, document.spec.as_bytes())),
            shape: (1, container.memory_mib),
            vmm,
            limits: spec.limits,
            file_bytes_max: 0,
            name: spec.launch_id.clone(),
            way: None,
            network: spec.network.clone(),
            document: document.write(),
            descriptors: [image, copy, scratch, log]
                .into_iter()
                .chain(content)
                .chain(volumes)
                .map(Some)
                .collect(),
            scratch: Some(kept),
            volumes: attached_names(spec),
        })
    }

    fn containers(&self) -> Result<&Starter> {
        let refuse = |sentence: &String| Refusal::new("CONTAINER_UNAVAILABLE", sentence.clone());
        self.starter.as_ref().map_err(refuse)
    }

    /// Has the monitor made. `first` are launch document, control socket and pod stream.
    pub(crate) fn begin_container(
        &self,
        plan: &Plan,
        ids: u32,
        cgroup: &Cgroup,
        first: [OwnedFd; 3],
    ) -> Result<Jailed> {
        let group = self.cgroups.inner(&plan.name);
        let oom = cgroup.inner_oom_file();
        let mut descriptors = Vec::from(first);
        for fd in plan.descriptors.iter().flatten() {
            descriptors.push(fd.try_clone().map_err(no_resources)?);
        }
        self.containers()?.begin(&Order { ids, group: &group, oom: &oom }, &descriptors)
    }

    /// Gives the monitor's network, in which nothing runs yet, the pod's card. The container shares that network: it is
    /// made by root and stays root's, so no privilege within the container is one over it.
    pub(crate) fn connect_container(
        &mut self,
        plan: &mut Plan,
        ids: u32,
        jailed: Jailed,
    ) -> Result<Jailed> {
        let (Some(network), Some(identity)) = (plan.network.take(), &plan.identity) else {
            return Ok(jailed);
        };
        // No other pod has these ids, so none has this name.
        let port = format!("{PAIR}{}", ids / CONTAINER_IDS);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("/proc/{}/ns/net", jailed.pid);
        let way = rustix::fs::open(path, flags, Mode::empty())
            .map_err(no_resources)
            .and_then(|namespace| {
                let networks = self.networks.as_mut().map_err(|sentence| refuse(sentence))?;
                let of = (identity.pod.as_str(), identity.tenant.as_str());
                networks.connect_namespace(of, &network, port, namespace.as_fd())
            })
            .inspect_err(|_| kill_and_reap(&jailed.pidfd))?;
        plan.way = Some(way);
        Ok(jailed)
    }
}
