//! One launch: the first wall, then the jail. Everything that can refuse does so before the ticket is
//! spent, and the ticket is spent before anything is made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use casemate_ticket::document::{LaunchDocument, Mode};
use casemate_ticket::network::Network;
use casemate_ticket::spec::{Level, Limits, Means, Spec, Vm, Vmm};
use casemate_ticket::ticket::{TicketError, check};
use rustix::net::SocketType;
use rustix::process::Resource;

use crate::cgroup;
use crate::counters::Waiting;
use crate::daemon::{Daemon, Source};
use crate::host;
use crate::jail::{self, Jail, pair, pointers};
use crate::jail_child_unsafe::{Program, Root};
use crate::launch_files::Files;
use crate::ledger::Entry;
use crate::machine;
use crate::pod::{Identity, Said};
use crate::pods::Pod;
use crate::poller::Interest;
use crate::refusal::{Refusal, Result};
use crate::request::Launch;
use crate::resize::{DiskSize, ScratchDisk};
use crate::router::state::Way;
use crate::sparse;
use crate::steps;
use crate::volumes::attached_names;

/// Time a VM may take beyond its spec's `boot_ms`, which its VMM watches itself.
const BOOT_GRACE: Duration = Duration::from_secs(10);
/// Descriptors of one VMM: its own, one per virtio queue and irqfd, epoll.
const VMM_DESCRIPTORS: u64 = 256;
/// Tasks of a monitor and of the OCI runtime that it starts, beside the app's.
const MONITOR_PIDS: u32 = 64;

/// A VM or a container to be started.
pub struct Plan {
    /// Which of them, as an isolation level.
    pub level: Level,
    /// Who it is; a template is nobody.
    pub identity: Option<Identity>,
    /// Shape.
    pub shape: (u32, u32),
    /// Filters its VMM must install.
    pub vmm: Vmm,
    /// Limits.
    pub limits: Limits,
    /// Largest file it may write, bytes.
    pub file_bytes_max: u64,
    /// Name of its cgroup.
    pub name: String,
    /// Its place on its tenant's bridge.
    pub way: Option<Way>,
    /// Of a container: that place is made once there is a namespace to make it for.
    pub network: Option<Network>,
    /// Text of the launch document.
    pub document: String,
    /// Descriptors 6 and up (docs/formats.md section 6); `None` for what this launch has no use for.
    pub descriptors: Vec<Option<OwnedFd>>,
    /// Its scratch disk, once more.
    pub scratch: Option<ScratchDisk>,
    /// Names of its tenant's volumes that it has.
    pub volumes: Vec<String>,
}

impl Daemon {
    /// Starts a pod; the connection is answered when its VMM runs.
    pub(crate) fn launch(&mut self, client: u64, launch: &Launch, fds: Vec<OwnedFd>) -> Result<()> {
        self.check_room()?;
        let kvm = self.open_kvm();
        let context = self.context(kvm.as_ref().ok().map(|(class, _)| *class));
        let spec_bytes = launch.spec.as_bytes();
        let now = host::boottime_ns();
        let admitted = check(&launch.ticket, launch.record.as_bytes(), spec_bytes, &context, now)
            .map_err(|error| refuse_ticket(&error, kvm.as_ref().err()))?;
        let files = Files::check(&admitted.spec, fds)?;
        let document = LaunchDocument {
            context,
            mode: Mode::Launch,
            record: launch.record.clone(),
            spec: launch.spec.clone(),
            ticket: launch.ticket.clone(),
        };
        let spec = &admitted.spec;
        let vm = match &spec.means {
            Means::Vm(vm) => vm,
            Means::Container(container) => {
                let plan = self.plan_container(&admitted, *container, &document, files)?;
                return self.start_connected(plan, client);
            }
        };
        let (_, kvm) = kvm.map_err(|reason| Refusal::new("KVM_UNAVAILABLE", reason))?;
        self.check_vm(spec, vm)?;
        self.check_new(spec)?;
        let Files { image, log, content } = files;
        let (mut descriptors, scratch) = self.vm_descriptors(spec, vm, kvm, [image, log])?;
        let volumes = self.attach_volumes(spec)?;
        self.spent.spend(&admitted.leaf_hash, admitted.deadline_ns)?;
        self.mark_volumes(spec)?;
        let (tap, way) = self.connect(spec)?.unzip();
        // Four numbers that one mask describes follow: those of volumes.
        descriptors.extend([tap, content].into_iter().chain(volumes.into_iter().map(Some)));
        let plan = Plan {
            level: Level::Vm,
            identity: Some(Identity::of(spec, spec_bytes)),
            shape: (vm.machine.vcpus, vm.machine.memory_mib),
            vmm: vm.vmm.clone(),
            limits: spec.limits,
            file_bytes_max: largest_file(spec),
            name: spec.launch_id.clone(),
            way,
            network: None,
            document: document.write(),
            descriptors,
            scratch: Some(scratch),
            volumes: attached_names(spec),
        };
        self.start_connected(plan, client)
    }

    /// A pod that could not be started has no way left.
    fn start_connected(&mut self, plan: Plan, client: u64) -> Result<()> {
        let pod = plan.name.clone();
        self.start_pod(plan, Some(client)).map(|_| ()).inspect_err(|_| self.leave_network(&pod))
    }

    pub(crate) fn check_new(&self, spec: &Spec) -> Result<()> {
        if self.knows_pod(&spec.launch_id) {
            let message = "a pod of this launch id runs or has ended already";
            return Err(Refusal::new("POD_EXISTS", message));
        }
        Ok(())
    }

    /// What the spec says of this host must be so: a spec is written by the agent.
    fn check_vm(&self, spec: &Spec, vm: &Vm) -> Result<()> {
        let init = &vm.init;
        let verity = &self.config.init_verity;
        let same_init = init.size == self.config.init_size()
            && init.data_blocks == verity.data_blocks
            && init.root == verity.root
            && init.salt == verity.salt;
        let template = (vm.machine.vcpus, vm.machine.memory_mib);
        let known = |wanted| self.templates.find(template, wanted).is_some();
        let checks = [
            ("vmm", vm.vmm == self.assets.vmm_digests),
            ("kernel", vm.kernel == self.assets.kernel_file),
            ("machine.cmdline", vm.machine.cmdline == machine::cmdline(self.kvm_class)),
            ("init", same_init),
            ("scratch", spec.scratch.begins_as(&self.assets.scratch_file)),
            ("template", vm.template.as_ref().is_none_or(known)),
        ];
        same_host(&checks)
    }

    fn vm_descriptors(
        &mut self,
        spec: &Spec,
        vm: &Vm,
        kvm: OwnedFd,
        [image, log]: [OwnedFd; 2],
    ) -> Result<(Vec<Option<OwnedFd>>, ScratchDisk)> {
        let shape = (vm.machine.vcpus, vm.machine.memory_mib);
        let (kernel, state, memory) = match &vm.template {
            Some(wanted) => {
                let (state, memory) =
                    self.templates.open(shape, wanted, &spec.tenant).map_err(no_resources)?;
                (None, Some(state), Some(memory))
            }
            None => (Some(self.assets.kernel().map_err(no_resources)?), None, None),
        };
        let init = self.assets.init().map_err(no_resources)?;
        let (scratch, kept) = self.scratch_disk(spec)?;
        let descriptors = vec![
            Some(kvm),
            kernel,
            Some(init),
            state,
            memory,
            Some(image),
            Some(scratch),
            Some(log),
        ];
        Ok((descriptors, kept))
    }

    /// A fresh scratch disk, for the pod and for spawn.
    pub(crate) fn scratch_disk(&self, spec: &Spec) -> Result<(OwnedFd, ScratchDisk)> {
        let scratch = self.assets.fresh_scratch(&self.config.state_dir).map_err(no_resources)?;
        let file = scratch.try_clone().map_err(no_resources)?;
        let size = DiskSize { bytes: spec.scratch.size, bytes_max: spec.scratch.size_max };
        Ok((scratch, ScratchDisk { file, size }))
    }

    /// Makes uid, cgroup, sockets and jail and starts the VMM or the monitor. Returns the pod's number.
    pub(crate) fn start_pod(&mut self, mut plan: Plan, client: Option<u64>) -> Result<u64> {
        let Some(uid) = self.ids(plan.level).take() else {
            let message = "every id of vm_uid_count, or of container.count, has its pod";
            return Err(Refusal::new("HOST_FULL", message));
        };
        let limits = cgroup::Limits {
            memory_bytes: mib(plan.shape.1.saturating_add(plan.limits.vmm_overhead_mib)),
            cpu_percent: plan.limits.cpu_quota_percent,
            pids: plan.limits.pids,
        };
        let made = match plan.level {
            Level::Vm => self.cgroups.create(&plan.name, &limits),
            Level::Container | Level::Host => self.cgroups.create_nested(
                &plan.name,
                &cgroup::Limits { pids: limits.pids.saturating_add(MONITOR_PIDS), ..limits },
            ),
        };
        let result = made
            .map_err(|error| {
                Refusal::new("CGROUP", format!("the pod's cgroup could not be made: {error}"))
            })
            .and_then(|cgroup| match self.enter_jail(&mut plan, uid, &cgroup) {
                Ok(entered) => Ok((cgroup, entered)),
                Err(refusal) => {
                    self.forget_launch(plan.identity.as_ref());
                    self.discard(cgroup);
                    Err(refusal)
                }
            });
        let (cgroup, entered) = match result {
            Ok(made) => made,
            Err(refusal) => {
                self.ids(plan.level).free(uid);
                return Err(refusal);
            }
        };
        self.keep(plan, uid, cgroup, entered, client)
    }

    fn enter_jail(
        &mut self,
        plan: &mut Plan,
        uid: u32,
        cgroup: &cgroup::Cgroup,
    ) -> Result<Entered> {
        let document = sparse::sealed_memfd("launch-document", plan.document.as_bytes())
            .map_err(no_resources)?;
        let document = sparse::reopen_read_only(document.as_fd()).map_err(no_resources)?;
        let (control, vmm_control) = pair(SocketType::SEQPACKET).map_err(no_resources)?;
        let (stream, vmm_stream) = pair(SocketType::STREAM).map_err(no_resources)?;
        let has_stream = plan.identity.is_some();
        let boot = Duration::from_millis(plan.limits.boot_ms.into()).saturating_add(BOOT_GRACE);
        let boot_until = Instant::now().checked_add(boot);
        let jailed = match plan.level {
            Level::Vm => {
                let stream = has_stream.then_some(vmm_stream.as_fd());
                let first = [Some(document.as_fd()), Some(vmm_control.as_fd()), stream];
                self.start_vmm(plan, uid, cgroup, &first, |jailed| {
                    self.write_down(plan, uid, &control, boot_until, jailed)
                })?
            }
            Level::Container | Level::Host => {
                let first = [document, vmm_control, vmm_stream];
                let jailed = self.begin_container(plan, uid, cgroup, first)?;
                let jailed = self.connect_container(plan, uid, jailed)?;
                jail::let_in(jailed, None, Some(cgroup), |jailed| {
                    self.write_down(plan, uid, &control, boot_until, jailed)
                })?
            }
        };
        steps::at("released");
        Ok(Entered { jailed, control, stream: has_stream.then_some(stream), boot_until })
    }

    /// What the next spawn has to know, before the process does anything.
    fn write_down(
        &self,
        plan: &Plan,
        uid: u32,
        control: &OwnedFd,
        boot_until: Option<Instant>,
        jailed: &jail::Jailed,
    ) -> Result<()> {
        let (Some(identity), Some(scratch)) = (&plan.identity, &plan.scratch) else {
            return Ok(());
        };
        let entry = Entry {
            identity: identity.clone(),
            level: plan.level,
            shape: plan.shape,
            vmm: plan.vmm.clone(),
            pid: jailed.pid,
            uid,
            way: plan.way.clone(),
            scratch: scratch.size,
            volumes: plan.volumes.clone(),
            launched: false,
            heard: Vec::new(),
            killed: None,
            boot_until,
            stop_until: None,
            exit: None,
        };
        self.bequeath(&entry, &[control.as_fd(), jailed.pidfd.as_fd(), scratch.file.as_fd()])
    }

    fn start_vmm(
        &self,
        plan: &Plan,
        uid: u32,
        cgroup: &cgroup::Cgroup,
        first: &[Option<BorrowedFd<'_>>],
        before: impl FnOnce(&jail::Jailed) -> Result<()>,
    ) -> Result<jail::Jailed> {
        let null = Some(self.null.as_fd());
        let mut descriptors: Vec<Option<BorrowedFd<'_>>> = vec![null, null, null];
        descriptors.extend(first);
        descriptors.extend(plan.descriptors.iter().map(|fd| fd.as_ref().map(AsFd::as_fd)));
        let argv = [c"casemate-vmm".to_owned()];
        let jail = Jail {
            own_user_namespace: true,
            id: (uid, uid),
            cgroup: Some(cgroup),
            is_monitor: false,
            host: None,
            limits: &resource_limits(plan),
            root: Root::Empty,
            descriptors: &descriptors,
            landlock: self.assets.landlock.as_ref().map(AsFd::as_fd),
            filter: None,
            program: Program::Descriptor { file: self.assets.vmm.as_fd(), argv: &pointers(&argv) },
        };
        jail::start(&jail, before)
    }

    fn keep(
        &mut self,
        plan: Plan,
        uid: u32,
        cgroup: cgroup::Cgroup,
        entered: Entered,
        client: Option<u64>,
    ) -> Result<u64> {
        let id = self.fresh_id();
        let jail::Jailed { pid, pidfd, channel } = entered.jailed;
        let watch = |fd, source| self.poller.watch(fd, Interest::IN, source);
        // Kept apart: it must outlive a failure to watch, to be killed.
        let killer = pidfd.try_clone().map_err(no_resources);
        let watched = killer.and_then(|killer| {
            let watch_all = || -> io::Result<_> {
                let end = watch(pidfd, Source::PodEnd(id))?;
                let jail = watch(channel, Source::PodJail(id))?;
                Ok((end, jail, watch(entered.control, Source::PodControl(id))?))
            };
            watch_all().map_err(|error| {
                jail::kill_and_reap(&killer);
                no_resources(error)
            })
        });
        let (end, jail, control) = match watched {
            Ok(watched) => watched,
            Err(refusal) => {
                self.forget_launch(plan.identity.as_ref());
                self.give_back(plan.level, uid, cgroup);
                return Err(refusal);
            }
        };
        let pod = Pod {
            ledger: plan.identity.as_ref().map(|_| Rc::clone(&self.ledger)),
            launched: false,
            identity: plan.identity,
            level: plan.level,
            shape: plan.shape,
            vmm: plan.vmm,
            pid,
            uid,
            cgroup,
            end,
            control: Some(control),
            jail: Some(jail),
            client,
            stream: entered.stream,
            said: Said::default(),
            template: None,
            paused: false,
            way: plan.way,
            scratch: plan.scratch,
            volumes: plan.volumes,
            resizing: None,
            waiting: Waiting::default(),
            jail_failure: None,
            killed: None,
            boot_until: entered.boot_until,
            stop_until: None,
            end_until: None,
            stopped_call: None,
            autopsy: None,
        };
        self.pods.insert(id, pod);
        Ok(id)
    }
}

struct Entered {
    jailed: jail::Jailed,
    control: OwnedFd,
    stream: Option<OwnedFd>,
    boot_until: Option<Instant>,
}

/// What the spec says of this host, and whether it is so.
pub fn same_host(checks: &[(&str, bool)]) -> Result<()> {
    let Some((name, _)) = checks.iter().find(|(_, same)| !same) else { return Ok(()) };
    let message = format!("the spec's {name} is not this host's; ask describe and decide again");
    Err(Refusal::new("SPEC_NOT_OF_THIS_HOST", message))
}

fn mib(count: u32) -> u64 {
    u64::from(count).saturating_mul(1 << 20)
}

/// Something ran out; the sentence says what.
pub fn no_resources(error: impl Into<io::Error>) -> Refusal {
    let error: io::Error = error.into();
    Refusal::new("HOST_RESOURCES", format!("the host refused what a launch needs: {error}"))
}

fn refuse_ticket(error: &TicketError, no_kvm: Option<&String>) -> Refusal {
    match (error, no_kvm) {
        (TicketError::KvmClass(_), Some(reason)) => Refusal::new("KVM_UNAVAILABLE", reason.clone()),
        _ => Refusal::new(error.code(), error.to_string()),
    }
}

/// Bytes of the largest file that its VMM may write.
fn largest_file(spec: &Spec) -> u64 {
    let volumes = spec.volumes.iter().map(|disk| disk.size);
    volumes.chain([spec.scratch.size_max, spec.log_size]).max().unwrap_or(0)
}

fn resource_limits(plan: &Plan) -> Vec<(Resource, u64)> {
    vec![
        (Resource::Nofile, VMM_DESCRIPTORS),
        (Resource::Fsize, plan.file_bytes_max),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Nproc, plan.limits.pids.into()),
        (Resource::Msgqueue, 0),
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
    ]
}
