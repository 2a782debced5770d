//! The life of the process, from its first line to the threads that end it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use casemate_ticket::spec::Vmm;
use casemate_wire::control::{FromVmm, Reason};
use casemate_wire::log_ring::{Shape, Writer};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::board::Board;
use crate::descriptors::{CONTROL, KVM, present};
use crate::failure::{Failure, failure};
use crate::guest::{Guest, LogFile, Told};
use crate::io::{Io, Wiring};
use crate::launch::{Pod, gather};
use crate::machine::{Machine, build};
use crate::mailbox::Mailbox;
use crate::report::{Report, exit};
use crate::seccomp::{self, Filter, Kind};
use crate::vcpu::{self, Ended};
use crate::{control, fds_unsafe, template};

/// Exit status after a panic: a bug of this program, never of the guest's making alone.
const EXIT_PANIC: i32 = 70;

/// The digests of the filters as canonical JSON, for `--digests`.
///
/// # Errors
/// `SECCOMP` when a list does not compile.
pub fn digests() -> Result<String, Failure> {
    let digest = |kind| seccomp::compile(kind).map(|filter| filter.digest.to_string());
    Ok(format!(
        r#"{{"control":"{}","io":"{}","vcpu":"{}"}}"#,
        digest(Kind::Control)?,
        digest(Kind::Io)?,
        digest(Kind::Vcpu)?
    ))
}

/// Runs one VM. Does not return.
pub fn main() -> ! {
    std::panic::set_hook(Box::new(|_| exit(EXIT_PANIC)));
    fds_unsafe::shape_heap();
    fds_unsafe::faults_are_fatal();
    let report = match present(CONTROL, "control socket") {
        Ok(control) => Report::new(control),
        // Started by hand, or by something that is not spawn: nobody to tell.
        Err(failure) => {
            eprintln!("casemate-vmm: {failure}");
            exit(1)
        }
    };
    match start(&report) {
        Ok(()) => exit(0),
        Err(failure) => report.die(&failure),
    }
}

fn start(report: &Report) -> Result<(), Failure> {
    seccomp::install(&seccomp::compile(Kind::Start)?)?;
    let parts = gather()?;
    let kvm = fds_unsafe::kvm(present(KVM, "/dev/kvm")?);
    let memory_mib = parts.machine.memory_mib;
    let step = Duration::from_millis(u64::from(parts.limits.boot_ms));
    let (machine, pod) = build(kvm, parts)?;
    match pod {
        Some(pod) => launch(report, machine, pod, step),
        None => build_template(report, machine, memory_mib, step),
    }
}

/// The three filters, equal to what the spec names.
struct Filters {
    control: Filter,
    io: Filter,
    vcpu: Arc<Filter>,
}

impl Filters {
    fn compile(wanted: &Vmm) -> Result<Self, Failure> {
        let filters = Self {
            control: seccomp::compile(Kind::Control)?,
            io: seccomp::compile(Kind::Io)?,
            vcpu: Arc::new(seccomp::compile(Kind::Vcpu)?),
        };
        let named = [
            ("control", &filters.control, wanted.filter_control),
            ("io", &filters.io, wanted.filter_io),
            ("vcpu", &*filters.vcpu, wanted.filter_vcpu),
        ];
        match named.iter().find(|(_, filter, wanted)| filter.digest != *wanted) {
            None => Ok(filters),
            Some((name, ..)) => Err(failure(
                Reason::Seccomp,
                format_args!("the {name} filter is not the one the spec names"),
            )),
        }
    }

    fn started(&self) -> FromVmm<'static> {
        FromVmm::Started {
            control: self.control.digest.0,
            io: self.io.digest.0,
            vcpu: self.vcpu.digest.0,
        }
    }
}

/// Threads first, then filters, then a barrier, then STARTED, then a second barrier, then the guest: no instruction of
/// the guest runs beside a thread that is not filtered.
fn launch(report: &Report, machine: Machine, pod: Pod, step: Duration) -> Result<(), Failure> {
    let filters = Filters::compile(&pod.vmm)?;
    let started = filters.started();
    let Filters { control: control_filter, io: io_filter, vcpu: vcpu_filter } = filters;
    // The VM's descriptor stays open to the end: closing it takes every irqfd away (kvm_vm_release).
    let Machine { kvm, vm: _vm, memory: _memory, vcpus, board, doorbells, wake, restored } =
        machine;
    drop(kvm);
    let (log, log_size) = pod.log;
    let log = Shape::of_file(log_size)
        .map_err(|error| failure(Reason::Descriptor, format_args!("log: {error}")))
        .and_then(|shape| {
            Writer::format(LogFile(log), shape)
                .map_err(|error| failure(Reason::Io, format_args!("the pod's log: {error}")))
        })?;
    let mailbox = Arc::new(Mailbox::default());
    let mut io = Io::new(Wiring {
        board: Arc::clone(&board),
        doorbells,
        wake,
        mailbox: Arc::clone(&mailbox),
        guest: Guest::new(
            restored,
            Told { config: pod.guest_config, files: pod.files },
            Some(log),
            Some(pod.gate),
        )
        .with_apps(&pod.checked),
        stream: Some(pod.stream),
        report: report.clone(),
        restored,
        template: false,
        step,
    })?;
    fds_unsafe::settle_heap();
    let workers = vcpus.len().saturating_add(1);
    let filtered = Arc::new(Barrier::new(workers.saturating_add(1)));
    let announced = Arc::new(Barrier::new(workers));
    for (id, vcpu) in (0_u32..).zip(vcpus) {
        let gates = (Arc::clone(&filtered), Arc::clone(&announced));
        let (filter, board, report) =
            (Arc::clone(&vcpu_filter), Arc::clone(&board), report.clone());
        spawn_thread(&format!("vcpu{id}"), move || {
            enter(&filter, &report, &gates.0);
            gates.1.wait();
            run_vcpu(vcpu, &board);
        })?;
    }
    let gate = Arc::clone(&filtered);
    let io_report = report.clone();
    spawn_thread("io", move || {
        enter(&io_filter, &io_report, &gate);
        io_report.send(&started);
        announced.wait();
        io.run();
    })?;
    enter(&control_filter, report, &filtered);
    control::serve(report, &mailbox, &board)
}

fn enter(filter: &Filter, report: &Report, gate: &Barrier) {
    if let Err(failure) = seccomp::install(filter) {
        report.die(&failure);
    }
    gate.wait();
}

fn run_vcpu(mut vcpu: VcpuFd, board: &Arc<Board>) {
    let never = AtomicBool::new(false);
    if let Ended::Off(why) = vcpu::run(&mut vcpu, board, &never) {
        board.power_off(why);
    }
    // No thread exits alone: the I/O thread ends the process for all of them.
    loop {
        std::thread::park();
    }
}

/// A template runs our kernel and our init and nothing else, under the start filter.
fn build_template(
    report: &Report,
    mut machine: Machine,
    memory_mib: u32,
    step: Duration,
) -> Result<(), Failure> {
    extern "C" fn interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), interrupt)
        .map_err(|error| failure(Reason::Kvm, format_args!("signal handler: {error}")))?;
    let pause = Arc::new(AtomicBool::new(false));
    let threads = (0_u32..)
        .zip(std::mem::take(&mut machine.vcpus))
        .map(|(id, mut vcpu)| {
            let (board, pause) = (Arc::clone(&machine.board), Arc::clone(&pause));
            spawn_thread(&format!("vcpu{id}"), move || {
                if let Ended::Off(why) = vcpu::run(&mut vcpu, &board, &pause) {
                    board.power_off(why);
                }
                vcpu
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut io = Io::new(Wiring {
        board: Arc::clone(&machine.board),
        doorbells: std::mem::take(&mut machine.doorbells),
        wake: machine
            .wake
            .try_clone()
            .map_err(|error| failure(Reason::Io, format_args!("eventfd: {error}")))?,
        mailbox: Arc::new(Mailbox::default()),
        guest: Guest::new(false, Told::default(), None, None),
        stream: None,
        report: report.clone(),
        restored: false,
        template: true,
        step,
    })?;
    io.run();
    pause.store(true, Ordering::Release);
    machine.vcpus = threads.into_iter().map(stop).collect::<Result<_, _>>()?;
    template::take(&machine, memory_mib, report)
}

/// Interrupts the thread until it has seen the pause flag: a signal that comes between two `KVM_RUN`s is lost.
fn stop(thread: JoinHandle<VcpuFd>) -> Result<VcpuFd, Failure> {
    let refuse = || failure(Reason::Kvm, format_args!("a vCPU thread could not be stopped"));
    while !thread.is_finished() {
        thread.kill(SIGRTMIN()).map_err(|_| refuse())?;
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().map_err(|_| refuse())
}

fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    Builder::new()
        .name(name.into())
        .stack_size(256 << 10)
        .spawn(body)
        .map_err(|error| failure(Reason::Kvm, format_args!("thread {name}: {error}")))
}
