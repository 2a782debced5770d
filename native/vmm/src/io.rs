//! The I/O thread: queues, the control pipe, the agent's stream, and time.
//!
//! It owns the conversation with the guest, so it alone knows whether a machine that went off had said EXIT; it ends
//! the process for every other thread.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_devices::{
    CONSOLE_OUTPUT_QUEUE, MmioTransport, SLOT_CONSOLE, SLOT_COUNT, SLOT_IMAGE, SLOT_INIT, SLOT_NET,
    SLOT_SCRATCH,
};
use casemate_wire::control::{FromVmm, Reason};
use casemate_wire::log_ring::Source;
use casemate_wire::metrics::DEVICES;
use casemate_wire::order::Phase;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::agent_stream::AgentStream;
use crate::board::Board;
use crate::clock_unsafe::monotonic_ns;
use crate::failure::{Failure, failure};
use crate::guest::{Event, Guest};
use crate::machine::Doorbell;
use crate::mailbox::{Mail, Mailbox};
use crate::report::{Report, exit};
use crate::tap_watch::{self, TapWatch};
use crate::timer::Timer;

const TOKEN_WAKE: u64 = 1 << 32;
const TOKEN_STREAM: u64 = TOKEN_WAKE + 1;
const TOKEN_TIMER: u64 = TOKEN_STREAM + 1;
const TOKEN_TAP: u64 = TOKEN_TIMER + 1;
const EVENTS: usize = 16;
const SLOTS: usize = DEVICES.len();
/// Bytes of a template's boot log that a failure's text ends with.
const LAST_WORDS: usize = 140;
/// Between EXIT and power-off: the guest unmounts; longer and it is switched off. Spawn waits a second longer.
const POWER_OFF_WAIT: Duration = Duration::from_secs(4);

/// Everything the thread works with.
#[derive(Debug)]
pub struct Io {
    board: Arc<Board>,
    doorbells: Vec<Doorbell>,
    wake: EventFd,
    mailbox: Arc<Mailbox>,
    guest: Guest,
    agent: AgentStream,
    report: Report,
    epoll: Epoll,
    /// Room for the serial port's log: a running I/O thread may not map memory.
    boot_log: Vec<u8>,
    timer: Timer,
    tap: TapWatch,
    /// By slot: when the device may go on with what its rate limit holds back.
    due: [Option<u64>; SLOTS],
    restored: bool,
    template: bool,
    step: Duration,
    deadline: Instant,
}

/// What an [`Io`] is made of.
#[derive(Debug)]
pub struct Wiring {
    /// The bus.
    pub board: Arc<Board>,
    /// The queues' doorbells.
    pub doorbells: Vec<Doorbell>,
    /// Rung by the board and the control thread.
    pub wake: EventFd,
    /// From the control thread.
    pub mailbox: Arc<Mailbox>,
    /// The conversation.
    pub guest: Guest,
    /// The agent's stream; absent for a template.
    pub stream: Option<OwnedFd>,
    /// To spawn.
    pub report: Report,
    /// The machine comes from a template.
    pub restored: bool,
    /// The machine becomes a template.
    pub template: bool,
    /// How long each step of the start may take.
    pub step: Duration,
}

impl Io {
    /// Registers everything that can become readable.
    ///
    /// # Errors
    /// `IO` when the kernel refuses.
    pub fn new(wiring: Wiring) -> Result<Self, Failure> {
        let epoll = Epoll::new().map_err(|error| io_failure(&error))?;
        let watch = |descriptor: RawFd, token| {
            let wanted = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, descriptor, wanted).map_err(|error| io_failure(&error))
        };
        for (index, bell) in (0_u64..).zip(&wiring.doorbells) {
            watch(bell.event.as_raw_fd(), index)?;
        }
        watch(wiring.wake.as_raw_fd(), TOKEN_WAKE)?;
        let timer = Timer::new().map_err(|error| io_failure(&error))?;
        watch(timer.descriptor(), TOKEN_TIMER)?;
        let mut agent = AgentStream::new(TOKEN_STREAM);
        if let Some(stream) = wiring.stream {
            agent.replace(&epoll, stream).map_err(|error| io_failure(&error))?;
        }
        let boot_log = wiring.board.serial().log_room();
        Ok(Self {
            board: wiring.board,
            doorbells: wiring.doorbells,
            wake: wiring.wake,
            mailbox: wiring.mailbox,
            guest: wiring.guest,
            agent,
            report: wiring.report,
            epoll,
            boot_log,
            timer,
            tap: TapWatch::new(TOKEN_TAP),
            due: [None; SLOTS],
            restored: wiring.restored,
            template: wiring.template,
            step: wiring.step,
            deadline: Instant::now(),
        })
    }

    /// Works until the machine is off and then ends the process. Returns only for a template, at HELLO.
    pub fn run(&mut self) {
        self.deadline = Instant::now().checked_add(self.step).unwrap_or(self.deadline);
        if let Err(failure) = self.serve() {
            self.give_up(&failure);
        }
    }

    fn serve(&mut self) -> Result<(), Failure> {
        if self.restored {
            self.guest.send_unique()?;
            for slot in 0..SLOT_COUNT {
                self.with_device(slot, MmioTransport::resume)?;
            }
            self.take_output()?;
        }
        loop {
            if self.settle()? {
                return Ok(());
            }
            // However much there is to do: a guest that rings without end would never be too late otherwise.
            if self.phase_has_deadline() && Instant::now() >= self.deadline {
                return self.too_late();
            }
            self.wait()?;
        }
    }

    /// Everything that can be done without waiting. True when a template may be taken.
    fn settle(&mut self) -> Result<bool, Failure> {
        loop {
            let Mail { stop, stream, metrics, resize } = self.mailbox.take();
            if let Some(stream) = stream {
                self.guest.agent_changed()?;
                self.agent.replace(&self.epoll, stream).map_err(|error| io_failure(&error))?;
            }
            if let Some(timeout_ms) = stop {
                self.stop(timeout_ms)?;
            }
            if metrics {
                self.report.send(&FromVmm::Metrics(self.board.metrics()));
            }
            if let Some(bytes) = resize {
                self.resize(bytes)?;
            }
            for (slot, queue) in self.board.rung() {
                self.notify(slot, queue)?;
            }
            (0..SLOT_COUNT).try_for_each(|slot| self.examine(slot))?;
            if self.board.off().is_some() {
                self.finish();
            }
            for event in self.guest.events() {
                if self.template && event == Event::Hello {
                    return Ok(true);
                }
                self.act(&event)?;
            }
            self.agent.flush(&mut self.guest);
            if !self.agent.is_there() {
                self.guest.agent_gone()?;
            }
            if !self.push_to_guest() {
                break;
            }
        }
        let wants_input =
            self.guest.phase() == Phase::Running && self.guest.guest_backlog().is_empty();
        self.agent.watch(&self.epoll, wants_input, !self.guest.agent_backlog().is_empty());
        Ok(false)
    }

    /// True when the pipe took something and may take more.
    fn push_to_guest(&mut self) -> bool {
        let waiting = self.guest.guest_backlog();
        if waiting.is_empty() {
            return false;
        }
        let Some(mut console) = self.board.slot(SLOT_CONSOLE) else { return false };
        let taken = console.console_push(waiting);
        waiting.drain(..taken.min(waiting.len()));
        taken != 0
    }

    fn wait(&mut self) -> Result<(), Failure> {
        self.timer
            .set(self.due.iter().flatten().min().copied())
            .map_err(|error| io_failure(&error))?;
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(self.timeout_ms(), &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(io_failure(&error)),
        };
        for event in events.iter().take(count) {
            self.ready(event.data(), event.event_set())?;
        }
        Ok(())
    }

    fn ready(&mut self, token: u64, flags: EventSet) -> Result<(), Failure> {
        match token {
            TOKEN_WAKE => {
                let _ = self.wake.read();
                Ok(())
            }
            TOKEN_TIMER => {
                self.timer.clear();
                self.go_on()
            }
            TOKEN_TAP => self.with_device(SLOT_NET, |card| tap_watch::ready(card, flags)),
            TOKEN_STREAM => {
                self.agent.receive(&mut self.guest, flags);
                Ok(())
            }
            index => {
                let bell = usize::try_from(index).ok().and_then(|index| self.doorbells.get(index));
                let Some(bell) = bell else { return Ok(()) };
                let _ = bell.event.read();
                let (slot, queue) = (bell.slot, bell.queue);
                self.notify(slot, queue)
            }
        }
    }

    fn notify(&mut self, slot: u32, queue: u16) -> Result<(), Failure> {
        self.with_device(slot, |device| device.notify(queue))?;
        if slot == SLOT_CONSOLE && queue == CONSOLE_OUTPUT_QUEUE {
            return self.take_output();
        }
        Ok(())
    }

    /// Devices whose time has come go on with what their rate limits held back.
    fn go_on(&mut self) -> Result<(), Failure> {
        let now = monotonic_ns();
        for slot in 0..SLOT_COUNT {
            let due = usize::try_from(slot).ok().and_then(|slot| *self.due.get(slot)?);
            if due.is_some_and(|due| due <= now) {
                self.with_device(slot, |_| ())?;
            }
        }
        Ok(())
    }

    /// Tells a device the time, has it do something, and notes when it wants to be told again.
    fn with_device(
        &mut self,
        slot: u32,
        work: impl FnOnce(&mut MmioTransport),
    ) -> Result<(), Failure> {
        if let Some(mut device) = self.board.slot(slot) {
            device.advance(monotonic_ns());
            work(&mut device);
            if let Some(due) = usize::try_from(slot).ok().and_then(|slot| self.due.get_mut(slot)) {
                *due = device.wake_at();
            }
            if slot == SLOT_NET {
                self.tap.update(&self.epoll, &device).map_err(|error| io_failure(&error))?;
            }
        }
        Ok(())
    }

    /// Ends the VM for a device that its driver broke, and for an image that is not what was signed.
    fn examine(&self, slot: u32) -> Result<(), Failure> {
        let Some(mut device) = self.board.slot(slot) else { return Ok(()) };
        let (fault, verity) = (device.fault(), device.take_verity_failure());
        drop(device);
        match (verity, fault) {
            (Some(block), _) => Err(unverified(slot, block)),
            (None, Some(fault)) => {
                Err(failure(Reason::DeviceQueue, format_args!("device {slot}: {fault}")))
            }
            (None, None) => Ok(()),
        }
    }

    fn take_output(&mut self) -> Result<(), Failure> {
        let Some(mut console) = self.board.slot(SLOT_CONSOLE) else { return Ok(()) };
        let mut result = Ok(());
        let guest = &mut self.guest;
        console.console_output(&mut |bytes| {
            if result.is_ok() {
                result = guest.receive(bytes);
            }
            result.is_ok()
        });
        drop(console);
        result
    }

    fn act(&mut self, event: &Event) -> Result<(), Failure> {
        let now = Instant::now();
        match event {
            Event::Hello => {
                self.deadline = now.checked_add(self.step).unwrap_or(now);
                self.guest.send_unique()?;
            }
            Event::Ready => self.report.send(&FromVmm::Ready { restored: self.restored }),
            Event::Exit(status) => {
                self.report.send(&FromVmm::Exit(*status));
                self.deadline = now.checked_add(POWER_OFF_WAIT).unwrap_or(now);
            }
            Event::Resized(resized) => self.report.send(&FromVmm::Resized(*resized)),
            Event::StartError(text) => {
                return Err(failure(Reason::AppStart, format_args!("{text}")));
            }
        }
        Ok(())
    }

    /// More of the scratch disk for a guest that runs; one that is ending has no use for it.
    fn resize(&mut self, bytes: u64) -> Result<(), Failure> {
        if self.guest.phase() != Phase::Running {
            return Ok(());
        }
        let mut grown = Ok(());
        self.with_device(SLOT_SCRATCH, |disk| grown = disk.grow(bytes))?;
        // Spawn looks at the same numbers, so this is not spawn.
        grown.map_err(|error| failure(Reason::LaunchDocument, format_args!("resize: {error}")))?;
        self.guest.resize(bytes)
    }

    fn stop(&mut self, timeout_ms: u32) -> Result<(), Failure> {
        match self.guest.phase() {
            Phase::Starting | Phase::Running | Phase::Over => self.guest.stop(timeout_ms),
            // Nothing of the tenant runs yet; there is nobody to ask.
            _ => {
                Err(failure(Reason::GuestGone, format_args!("stopped before the app was started")))
            }
        }
    }

    fn phase_has_deadline(&self) -> bool {
        self.guest.phase() != Phase::Running
    }

    /// Milliseconds until the deadline, rounded up so that a wake-up is never early; -1 without one.
    fn timeout_ms(&self) -> i32 {
        if !self.phase_has_deadline() {
            return -1;
        }
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        i32::try_from(left).unwrap_or(i32::MAX).saturating_add(1)
    }

    fn too_late(&mut self) -> Result<(), Failure> {
        match self.guest.phase() {
            Phase::Over => self.finish(),
            Phase::Boot => Err(failure(
                Reason::BootTimeout,
                format_args!("the guest did not say HELLO within {} ms", self.step.as_millis()),
            )),
            phase => Err(failure(
                Reason::GuestSilent,
                format_args!(
                    "the guest said nothing in phase {phase:?} for {} ms",
                    self.step.as_millis()
                ),
            )),
        }
    }

    /// The machine is off, or has had its time to go off. What the guest wrote before its last instruction is still
    /// in the queue; it counts.
    fn finish(&mut self) -> ! {
        let drained = self.notify(SLOT_CONSOLE, CONSOLE_OUTPUT_QUEUE);
        let drained = drained.and(self.examine(SLOT_CONSOLE));
        let events = self.guest.events();
        let acted = events.iter().try_for_each(|event| self.act(event));
        if let Err(failure) = drained.and(acted) {
            self.give_up(&failure);
        }
        self.agent.flush(&mut self.guest);
        if self.guest.phase() == Phase::Over {
            self.write_boot_log();
            exit(0);
        }
        let panicked = self.boot_log().windows(12).any(|text| text == b"Kernel panic");
        let failure = match self.board.off() {
            _ if panicked => {
                failure(Reason::GuestPanic, format_args!("the guest's kernel panicked"))
            }
            Some(off) => {
                let (reason, text) = off.explain();
                failure(reason, format_args!("{text}"))
            }
            None => failure(Reason::GuestSilent, format_args!("the guest did not power off")),
        };
        self.give_up(&failure)
    }

    fn give_up(&mut self, failure: &Failure) -> ! {
        self.agent.flush(&mut self.guest);
        self.write_boot_log();
        let _ = self.guest.note(Source::VmmNote, failure.to_string().as_bytes());
        if self.template {
            let words = self.last_words();
            let text = format!("{}; the kernel said last: {words}", failure.text);
            self.report.die(&Failure { reason: failure.reason, text });
        }
        self.report.die(failure)
    }

    /// The guest kernel's words, bounded by the serial port's buffer, go to the pod's log.
    fn write_boot_log(&mut self) {
        self.boot_log();
        let _ = self.guest.note(Source::GuestConsole, &self.boot_log);
        let stray = self.board.stray_accesses();
        if stray != 0 {
            let text =
                format!("the guest made {stray} accesses to addresses or ports of no device");
            let _ = self.guest.note(Source::VmmNote, text.as_bytes());
        }
        let (refused, last) = self.board.refused_msrs();
        if refused != 0 {
            let text = format!(
                "the guest tried model-specific registers that it may not have {refused} times, last {last:#x}"
            );
            let _ = self.guest.note(Source::VmmNote, text.as_bytes());
        }
    }

    /// What the guest's kernel said.
    fn boot_log(&mut self) -> &[u8] {
        self.board.serial().log_to(&mut self.boot_log);
        &self.boot_log
    }

    /// A template has no log: what its kernel said last goes into the failure's text instead.
    fn last_words(&mut self) -> String {
        let log = self.boot_log();
        let start = log.len().saturating_sub(LAST_WORDS);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).replace(['\r', '\n'], " ")
    }
}

fn unverified(slot: u32, block: u64) -> Failure {
    let disk = match slot {
        SLOT_INIT => "init",
        SLOT_IMAGE => "image",
        _ => "disk",
    };
    failure(
        Reason::Verity,
        format_args!("block {block} of the {disk} is not the one its signature covers"),
    )
}

fn io_failure(error: &std::io::Error) -> Failure {
    failure(Reason::Io, format_args!("the I/O thread: {error}"))
}
