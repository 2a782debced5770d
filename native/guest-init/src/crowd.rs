//! The processes beside the app, and what the host says to them and hears of them.

use std::time::Instant;

use casemate_ticket::app::App;
use casemate_ticket::errand::Request;
use casemate_wire::frame::{Frame, GuestKind, HostKind};
use casemate_wire::payload::{OutputCredit, Signal, Size, StartError, Started};
use casemate_wire::sessions::{SessionError, Sessions};
use rustix::event::PollFd;

use crate::beside::Beside;
use crate::failure::Failure;
use crate::link::{Broken, Outbox};
use crate::namespaces::Namespaces;
use crate::report::Report;
use crate::running::Part;
use crate::site::Site;

/// All that are there, each with the place of its app.
#[derive(Debug, Default)]
pub struct Crowd(Sessions<(usize, Beside)>);

impl Crowd {
    /// EXEC: one more.
    ///
    /// # Errors
    /// [`Broken::Session`] when the host knows better than to ask for it.
    pub fn exec(
        &mut self,
        (session, place, request): (u16, usize, &Request),
        app: &App,
        namespaces: &Namespaces,
        site: &Site,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        if !self.0.may_open(session) {
            return Err(Broken::Session(SessionError::Busy));
        }
        match Beside::start(session, request, app, namespaces, site) {
            Ok(beside) => Ok(self.0.open(session, (place, beside))?),
            Err(failure) => say_error(session, &failure, outbox),
        }
    }

    /// EXEC for an app that does not run, or one that is none.
    ///
    /// # Errors
    /// As [`Crowd::exec`].
    pub fn refuse(
        &mut self,
        session: u16,
        failure: &Failure,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        if !self.0.may_open(session) {
            return Err(Broken::Session(SessionError::Busy));
        }
        say_error(session, failure, outbox)
    }

    /// A frame for one of them; for one that has just ended it has no effect.
    ///
    /// # Errors
    /// [`Broken::Payload`] and [`Broken::Credit`], as for the app.
    pub fn hear(&mut self, frame: Frame<'_, HostKind>, outbox: &mut Outbox) -> Result<(), Broken> {
        let Frame { kind, session, payload } = frame;
        let wrong = || Broken::Payload(kind);
        let Some((_, beside)) = self.0.get_mut(session) else { return Ok(()) };
        match kind {
            HostKind::Stdin => beside.take_input(payload, outbox),
            HostKind::StdinEof => {
                beside.end_input();
                beside.pump(Part::Stdin, outbox)
            }
            HostKind::Signal => {
                let signal = Signal::parse(payload).ok_or_else(wrong)?;
                let number = i32::try_from(signal.number).map_err(|_| wrong())?;
                if !(1..=64).contains(&number) {
                    return Err(wrong());
                }
                beside.signal(number);
                Ok(())
            }
            HostKind::Credit => {
                let credit = OutputCredit::parse(payload).ok_or_else(wrong)?;
                beside.grant(credit.stream, credit.bytes)
            }
            HostKind::Window => {
                beside.resize(Size::parse(payload).ok_or_else(wrong)?);
                Ok(())
            }
            HostKind::Close => {
                beside.close();
                Ok(())
            }
            _ => Err(wrong()),
        }
    }

    /// Adds what is worth waiting for, after what the app waits for.
    pub fn watch<'a>(&'a self, outbox: &Outbox, mut add: impl FnMut(u16, Part, PollFd<'a>)) {
        for (_, (_, beside)) in self.0.iter() {
            beside.watch(outbox, &mut add);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, (_, beside))| beside.deadline()).min()
    }

    /// Something that was waited for is there.
    ///
    /// # Errors
    /// As those of the streams.
    pub fn serve(
        &mut self,
        (session, part): (u16, Part),
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        let Some((_, beside)) = self.0.get_mut(session) else { return Ok(()) };
        match part {
            Part::Process => beside.reap(),
            Part::Report => match beside.read_report()? {
                Report::Unfinished => Ok(()),
                Report::Started => {
                    let started = Started { pid: beside.pid() };
                    outbox.push_of(session, GuestKind::Started, started.encode().as_bytes())?;
                    beside.begin(outbox)?;
                    self.0.guest(session, GuestKind::Started)?;
                    Ok(())
                }
                Report::Failed(failure) => {
                    beside.bury();
                    self.0.guest(session, GuestKind::Error)?;
                    say_error(session, &failure, outbox)
                }
            },
            part => beside.pump(part, outbox),
        }
    }

    /// KILL for those that do not mind a hang-up, and EXIT of those whose output is out.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn look_at_the_clock(&mut self, outbox: &mut Outbox) -> Result<(), Broken> {
        let now = Instant::now();
        for (_, (_, beside)) in self.0.iter_mut() {
            beside.look_at_the_clock(now);
        }
        let over: Vec<_> = self
            .0
            .iter()
            .filter_map(|(session, (_, beside))| beside.finished(now).map(|exit| (session, exit)))
            .collect();
        for (session, exit) in over {
            self.0.guest(session, GuestKind::Exit)?;
            outbox.push_of(session, GuestKind::Exit, exit.encode().as_bytes())?;
        }
        Ok(())
    }

    /// The app at `place` has ended, and the kernel ended all of its namespace with it.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn end(&mut self, place: usize, outbox: &mut Outbox) -> Result<(), Broken> {
        let of_app = |(session, (of, beside)): (u16, &(usize, Beside))| {
            (*of == place).then(|| (session, beside.cut_off()))
        };
        let ended: Vec<_> = self.0.iter().filter_map(of_app).collect();
        for (session, exit) in ended {
            if let Some(exit) = exit {
                self.0.guest(session, GuestKind::Exit)?;
                outbox.push_of(session, GuestKind::Exit, exit.encode().as_bytes())?;
            } else {
                self.0.guest(session, GuestKind::Error)?;
                say_error(session, &gone(), outbox)?;
            }
        }
        Ok(())
    }
}

fn gone() -> Failure {
    Failure::new(casemate_wire::payload::ErrorCode::Other, "the app has ended")
}

fn say_error(session: u16, failure: &Failure, outbox: &mut Outbox) -> Result<(), Broken> {
    let error = StartError { code: failure.code, text: &failure.text };
    outbox.push_of(session, GuestKind::Error, &error.encode())
}
