//! What a guest says of its apps' health: kept for the next agent, passed on, and no more of it than checks can come to.

use casemate_wire::control::Reason;
use casemate_wire::frame::GuestKind;
use casemate_wire::health::{Allowance, Health, OUTPUT_MAX, State};

use super::{Talk, malformed, now_ns, parsed};
use crate::clock_unsafe::monotonic_ns;
use crate::failure::{Failure, failure};

/// Where in a payload the time is that the state began.
const SINCE: std::ops::Range<usize> = 8..16;

/// What was heard last.
#[derive(Debug)]
pub(super) struct Heard {
    allowance: Allowance,
    state: Option<(State, u64)>,
    /// The last payload with the VMM's time in it; empty: none came. The room is made at once.
    last: Vec<u8>,
}

impl Heard {
    pub(super) fn new() -> Self {
        let last = Vec::with_capacity(SINCE.end.saturating_add(OUTPUT_MAX));
        Self { allowance: Allowance::new(monotonic_ns()), state: None, last }
    }

    fn keep(&mut self, payload: &[u8], now_ns: u64) -> Result<(), Failure> {
        let kind = GuestKind::Health;
        let health = parsed(Health::parse(payload), kind)?;
        if health.since_ns != 0 {
            return Err(malformed(kind));
        }
        self.allowance.spend(monotonic_ns()).ok_or_else(|| {
            failure(Reason::GuestProtocol, format_args!("more words on health than checks"))
        })?;
        let since = match self.state {
            Some((state, since)) if state == health.state => since,
            _ => now_ns,
        };
        self.state = Some((health.state, since));
        self.last.clear();
        self.last.extend_from_slice(payload);
        if let Some(place) = self.last.get_mut(SINCE) {
            place.copy_from_slice(&since.to_le_bytes());
        }
        Ok(())
    }
}

impl Talk {
    /// # Errors
    /// `GUEST_PROTOCOL` for a guest without a check, one that floods, or a payload that is none.
    pub(super) fn hear_health(&mut self, place: usize, payload: &[u8]) -> Result<(), Failure> {
        let heard = self.apps.get_mut(place).and_then(|app| app.health.as_mut());
        let heard = heard.ok_or_else(|| {
            failure(Reason::GuestProtocol, format_args!("nobody asked for the app's health"))
        })?;
        heard.keep(payload, now_ns())?;
        self.repeat_health(place)
    }

    /// Tells the agent what was heard last of an app, if anything was.
    ///
    /// # Errors
    /// None that a guest can cause.
    pub(super) fn repeat_health(&mut self, place: usize) -> Result<(), Failure> {
        let Some(app) = self.apps.get_mut(place) else { return Ok(()) };
        let number = app.number();
        let Some(heard) = &mut app.health else { return Ok(()) };
        let last = std::mem::take(&mut heard.last);
        let kind = GuestKind::Health;
        let told = if last.is_empty() { Ok(()) } else { self.tell_agent_of(number, kind, &last) };
        if let Some(heard) = self.apps.get_mut(place).and_then(|app| app.health.as_mut()) {
            heard.last = last;
        }
        told
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
