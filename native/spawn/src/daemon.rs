//! The event loop, and all that spawn knows.
//!
//! One thread, no waiting: everything that takes time (a client, a jail, a VM) is a state here and a
//! descriptor in the poller. What each event does is in `clients`, `pods`, `templates`, `workers`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_ticket::document::Context;
use casemate_ticket::spec::{KvmClass, Level};

use crate::adopt::{Descriptors, inheritance};
use crate::assets::Assets;
use crate::cgroup::{Cgroup, Cgroups};
use crate::clients::Client;
use crate::config::{CONTAINER_IDS, Config};
use crate::filter::{Filter, Kind};
use crate::handover::Stopping;
use crate::host;
use crate::kmsg::Kmsg;
use crate::ledger::Ledger;
use crate::network::Networks;
use crate::pod::Exited;
use crate::pods::Pod;
use crate::poller::{Interest, Poller, Watched};
use crate::refusal::{Refusal, Result};
use crate::spent::Spent;
use crate::starter::Starter;
use crate::store::{NETWORK, Store};
use crate::sys_unsafe::signals;
use crate::template_store::TemplateStore;
use crate::templates::Templates;
use crate::uids::Uids;
use crate::volumes::{Copying, Volumes};
use crate::workers::Worker;

/// How often expired tickets and networks of nobody's are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often the removal of groups is tried again that the kernel would not remove yet.
const COLLECT_EVERY: Duration = Duration::from_millis(500);
/// How long to wait for the run directory's lock, and how often to try: for a moment a child of the spawn before, on its
/// way into its jail, may have it.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// Open files spawn wants: 128 clients with 253 descriptors each, and 4 for each VM.
const DESCRIPTORS_MAX: u64 = 65_536;
/// Open files it can work with.
const DESCRIPTORS_MIN: u64 = 4096;

/// Which descriptor something happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The listening socket.
    Listener,
    /// A signal to end.
    Signals,
    /// A connection.
    Client(u64),
    /// A VM's jail is made, or failed.
    PodJail(u64),
    /// A VMM said something.
    PodControl(u64),
    /// A VMM has ended.
    PodEnd(u64),
    /// A worker's jail is made, or failed.
    WorkerJail(u64),
    /// A worker wrote to its standard error.
    WorkerLog(u64),
    /// A worker has ended.
    WorkerEnd(u64),
    /// The router said something, or has ended.
    Router,
}

/// A group that the kernel would not remove yet, and the range of ids that is free with it.
#[derive(Debug)]
struct Garbage {
    cgroup: Cgroup,
    range: Option<u32>,
    /// When its removal is tried again.
    again: Option<Instant>,
}

/// Everything spawn knows.
#[derive(Debug)]
pub struct Daemon {
    pub(crate) config: Config,
    pub(crate) assets: Assets,
    pub(crate) boot_id: String,
    pub(crate) kvm_class: KvmClass,
    pub(crate) poller: Poller<Source>,
    pub(crate) listener: Option<Watched<Source>>,
    pub(crate) clients: BTreeMap<u64, Client>,
    pub(crate) pods: BTreeMap<u64, Pod>,
    pub(crate) exited: VecDeque<Exited>,
    pub(crate) workers: BTreeMap<u64, Worker>,
    pub(crate) worker_filter: Filter,
    pub(crate) templates: Templates,
    pub(crate) template_store: TemplateStore,
    /// Of VMs.
    uids: Uids,
    /// Of containers.
    ranges: Uids,
    /// What starts containers, or why nothing does.
    pub(crate) starter: std::result::Result<Starter, String>,
    pub(crate) cgroups: Cgroups,
    pub(crate) spent: Spent,
    pub(crate) volumes: Volumes,
    /// Of volumes, under way.
    pub(crate) copying: Vec<Copying>,
    /// Or why pods have none.
    pub(crate) networks: std::result::Result<Networks, String>,
    /// Until it ends.
    pub(crate) router: Option<Watched<Source>>,
    /// What the next spawn must know of pods.
    pub(crate) ledger: Rc<Ledger>,
    /// Where their descriptors outlive this one; `None` when they end with it.
    pub(crate) store: Option<Store>,
    pub(crate) kmsg: Option<Kmsg>,
    /// `/dev/null`, read and write.
    pub(crate) null: OwnedFd,
    /// Since spawn was told to stop: how, and until when it waits.
    pub(crate) stopping: Option<Stopping>,
    pub(crate) signals: Watched<Source>,
    /// Groups the kernel would not remove yet.
    garbage: Vec<Garbage>,
    next_sweep: Option<Instant>,
    next_id: u64,
    /// Held for ever: one spawn per run directory.
    _lock: OwnedFd,
}

impl Daemon {
    /// Takes the run directory, takes over what an earlier spawn left or ends it, listens. `descriptors` are what was
    /// kept of that spawn's, `store` keeps those of this one.
    ///
    /// # Errors
    /// `START`, `ASSET`, with what is wrong and where.
    pub fn start(
        config: Config,
        networks: std::result::Result<Networks, String>,
        starter: std::result::Result<Starter, String>,
        descriptors: Descriptors,
        store: Option<Store>,
    ) -> Result<Self> {
        let start = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| Refusal::new("START", format!("{what}: {error}"))
        };
        prepare_process().map_err(start("preparing the process"))?;
        let lock = prepare_directories(&config).map_err(start("run_dir or state_dir"))?;
        let assets = Assets::open(&config)?;
        let cgroups = Cgroups::open(&config.run_dir).map_err(start("cgroups"))?;
        let boot_id = host::boot_id().map_err(start("boot id"))?;
        let ledger =
            Ledger::open(&config.run_dir, &boot_id).map_err(start("the directory of pods"))?;
        let network_is_kept = networks.as_ref().is_ok_and(Networks::is_kept);
        if let (Some(store), Ok(networks), false) = (&store, &networks, network_is_kept) {
            let put = store.replace(NETWORK, networks.namespace());
            put.map_err(start("NOTIFY_SOCKET"))?;
        }
        let mut inherited = inheritance(&ledger, descriptors, &cgroups, network_is_kept)
            .map_err(start("the directory of pods"))?;
        let (uids, ranges) = end_what_is_left(&config, &cgroups, &inherited.groups())
            .map_err(start("ending what an earlier spawn left"))?;
        let template_store =
            TemplateStore::open(&config.template_dir, &boot_id).map_err(start("template_dir"))?;
        let poller = Poller::new().map_err(start("epoll"))?;
        let signals = signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2])
            .and_then(|fd| poller.watch(fd, Interest::IN, Source::Signals))
            .map_err(start("signals"))?;
        let kept = inherited.listener(&config.run_dir.join("spawn.sock"));
        let listener =
            crate::clients::listen(&config.run_dir, config.agent.1, kept, store.as_ref())
                .and_then(|fd| poller.watch(fd, Interest::IN, Source::Listener))
                .map_err(start("spawn.sock"))?;
        let router = networks.as_ref().ok().map(|networks| {
            networks.watched().and_then(|fd| poller.watch(fd, Interest::IN, Source::Router))
        });
        let mut daemon = Self {
            boot_id,
            kvm_class: host::kvm_class(),
            uids,
            ranges,
            starter,
            kmsg: Kmsg::open(inherited.has_pods()),
            null: dev_null().map_err(start("/dev/null"))?,
            listener: Some(listener),
            clients: BTreeMap::new(),
            pods: BTreeMap::new(),
            exited: VecDeque::new(),
            workers: BTreeMap::new(),
            worker_filter: Filter::compile(Kind::Worker)?,
            templates: Templates::default(),
            template_store,
            stopping: None,
            garbage: Vec::new(),
            next_sweep: Some(Instant::now()),
            next_id: 0,
            spent: Spent::open(&config.run_dir).map_err(start("spent tickets"))?,
            volumes: Volumes::open(&config.state_dir).map_err(start("volumes"))?,
            copying: Vec::new(),
            _lock: lock,
            config,
            assets,
            poller,
            cgroups,
            networks,
            router: router.transpose().map_err(start("the router"))?,
            ledger: Rc::new(ledger),
            store,
            signals,
        };
        daemon.take_over(inherited).map_err(start("taking pods over"))?;
        Ok(daemon)
    }

    /// Tells the service manager that this spawn serves.
    ///
    /// # Errors
    /// `START` when it takes no message.
    pub fn announce(&self) -> Result<()> {
        let Some(store) = &self.store else {
            log("nobody keeps descriptors: pods end with this spawn");
            return Ok(());
        };
        let failed = |error| Refusal::new("START", format!("NOTIFY_SOCKET: {error}"));
        store.ready().map_err(failed)
    }

    /// Serves until a signal ends it; returns when every VM is gone or left to the next spawn.
    ///
    /// # Errors
    /// When waiting itself fails.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            let due = self.next_deadline();
            for (source, flags) in self.poller.wait(due)? {
                self.dispatch(source, flags);
            }
            self.do_what_is_due();
        }
        self.garbage.retain(|garbage| garbage.cgroup.remove().is_err());
        self.cgroups.close();
        Ok(())
    }

    fn dispatch(&mut self, source: Source, flags: Interest) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.signalled(),
            Source::Client(id) => self.client_event(id, flags),
            Source::PodJail(id) => self.pod_jail(id),
            Source::PodControl(id) => self.pod_control(id),
            Source::PodEnd(id) => self.pod_end(id),
            Source::WorkerJail(id) => self.worker_jail(id),
            Source::WorkerLog(id) => self.worker_log(id),
            Source::WorkerEnd(id) => self.worker_end(id),
            Source::Router => self.router_event(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let clients = self.clients.values().filter_map(|client| client.deadline);
        let pods = self.pods.values().filter_map(Pod::next_deadline);
        let workers = self.workers.values().filter_map(|worker| worker.deadline);
        let stopping = self.stopping.as_ref().map(|stopping| stopping.until);
        let copies = (!self.copying.is_empty()).then(Instant::now);
        let garbage = self.garbage.iter().filter_map(|garbage| garbage.again).min();
        let own = stopping.into_iter().chain(copies).chain(garbage).chain(self.next_sweep);
        clients.chain(pods).chain(workers).chain(own).min()
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        self.clients_due(now);
        self.pods_due(now);
        self.metrics_due(now);
        self.workers_due(now);
        self.copy_volumes();
        self.collect_garbage(now);
        if self.next_sweep.is_some_and(|at| at <= now) {
            if let Err(error) = self.spent.sweep(host::boottime_ns()) {
                log(&format!("spent tickets could not be swept: {error}"));
            }
            self.sweep_networks();
            self.next_sweep = now.checked_add(SWEEP_EVERY);
        }
    }

    /// Removes a cgroup now, or later when the kernel still holds something in it.
    pub(crate) fn discard(&mut self, cgroup: Cgroup) {
        self.throw_away(cgroup, None);
    }

    /// The ids that pods of a level get.
    pub(crate) fn ids(&mut self, level: Level) -> &mut Uids {
        if level == Level::Vm { &mut self.uids } else { &mut self.ranges }
    }

    /// Gives a pod's ids back. Those of a container, whose processes are many, only when the last of them is gone.
    pub(crate) fn give_back(&mut self, level: Level, uid: u32, cgroup: Cgroup) {
        if level == Level::Vm {
            self.uids.free(uid);
            return self.discard(cgroup);
        }
        cgroup.kill();
        self.throw_away(cgroup, Some(uid));
    }

    fn throw_away(&mut self, cgroup: Cgroup, range: Option<u32>) {
        let now = Instant::now();
        self.garbage.push(Garbage { cgroup, range, again: Some(now) });
        self.collect_garbage(now);
    }

    fn collect_garbage(&mut self, now: Instant) {
        let ranges = &mut self.ranges;
        self.garbage.retain_mut(|Garbage { cgroup, range, again }| {
            if again.is_some_and(|at| at > now) {
                return true;
            }
            *again = now.checked_add(COLLECT_EVERY);
            let is_gone = cgroup.remove().is_ok();
            match range {
                Some(range) if is_gone => ranges.free(*range),
                // At level host no namespace ends with the first of its processes.
                Some(_) => cgroup.kill(),
                None => {}
            }
            !is_gone
        });
    }

    fn sweep_networks(&mut self) {
        if let Ok(networks) = &mut self.networks {
            networks.sweep();
        }
    }

    /// A number that no other client, pod or worker has had.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// What tickets are checked against, with the class of a KVM that can be used at this moment.
    pub(crate) fn context(&self, kvm: Option<KvmClass>) -> Context {
        Context {
            node: self.config.node.clone(),
            boot_id: self.boot_id.clone(),
            kvm,
            allow_software_kvm: self.config.allow_software_kvm,
            levels: self.config.levels.clone(),
            log_keys: self.config.log_keys.clone(),
        }
    }

    /// Opens KVM for one VM, or says why there is none to use.
    pub(crate) fn open_kvm(&self) -> std::result::Result<(KvmClass, OwnedFd), String> {
        let kvm = host::open_kvm()?;
        let (class, built_for) = (self.kvm_class, self.assets.kernel_class);
        if class == built_for {
            return Ok((class, kvm));
        }
        let (class, built_for) = (class.as_str(), built_for.as_str());
        Err(format!(
            "this host has {class} KVM and the configured kernel is built for {built_for} KVM"
        ))
    }
}

fn dev_null() -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

/// One line on standard error, where the service manager picks it up. Nothing of a tenant's is in it.
pub fn log(line: &str) {
    use std::io::Write;
    // Whoever read it may be gone; that must not end spawn and its VMs.
    let _ = writeln!(io::stderr(), "casemate-spawn: {line}");
}

/// No supplementary groups to be inherited by VMs, room for descriptors, no core dumps with tenants' memory.
pub fn prepare_process() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    rustix::thread::set_thread_groups(&[])?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS_MAX);
    if hard < DESCRIPTORS_MIN {
        let problem =
            format!("the hard limit of open files is {hard}; raise it to {DESCRIPTORS_MAX}");
        return Err(io::Error::other(problem));
    }
    let all = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Nofile, all(hard.min(DESCRIPTORS_MAX)))?;
    setrlimit(Resource::Core, all(0))?;
    Ok(())
}

fn prepare_directories(config: &Config) -> io::Result<OwnedFd> {
    fs::create_dir_all(&config.run_dir)?;
    // The agent must reach the socket in it.
    fs::set_permissions(&config.run_dir, Permissions::from_mode(0o755))?;
    fs::create_dir_all(&config.state_dir)?;
    fs::set_permissions(&config.state_dir, Permissions::from_mode(0o700))?;
    lock(&config.run_dir.join("spawn.lock"))
}

/// Ends what an earlier spawn left in groups that are not taken over. Returns the user ids that are free after that.
fn end_what_is_left(
    config: &Config,
    cgroups: &Cgroups,
    taken_over: &[&str],
) -> io::Result<(Uids, Uids)> {
    let swept = cgroups.sweep(taken_over)?;
    if swept.ended > 0 {
        log(&format!("ended what an earlier spawn left in {} cgroups", swept.ended));
    }
    for group in &swept.stuck {
        log(&format!("a process that an earlier spawn left does not end: {}", group.display()));
    }
    let mut uids = Uids::new(config.vm_uid_base, config.vm_uid_count, 1);
    let (base, count) = config.container.as_ref().map_or((1, 0), |of| (of.uid_base, of.count));
    let mut ranges = Uids::new(base, count, CONTAINER_IDS);
    for uid in swept.uids() {
        uids.reserve(uid);
        ranges.reserve(uid);
    }
    Ok((uids, ranges))
}

/// A file that this process alone has locked until it ends.
pub fn lock(path: &Path) -> io::Result<OwnedFd> {
    let file: OwnedFd =
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?.into();
    let end = Instant::now().checked_add(LOCK_WAIT);
    let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    while rustix::fs::flock(file.as_fd(), operation).is_err() {
        if end.is_none_or(|end| Instant::now() > end) {
            return Err(io::Error::other("another casemate-spawn runs on this run directory"));
        }
        sleep(LOCK_EVERY);
    }
    Ok(file)
}
