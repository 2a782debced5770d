//! The gate before a process beside the app: promise 2 holds for it too, whoever the agent is by now. Nothing of a
//! request reaches the guest before its record, with the receipt of the log, was checked here and spent.

use casemate_ticket::document::Context;
use casemate_ticket::exec::{Admitted, Pod, check};
use casemate_ticket::ticket::TicketError;
use casemate_wire::payload::Admit;

/// Tickets that were spent and whose deadline is still to come: no longer than 30 s each, so that a pod has no more
/// than these begun in 30 s. A full list refuses.
const SPENT_MAX: usize = 256;

/// Why a process is not started.
#[derive(Debug, PartialEq, Eq)]
pub enum Closed {
    /// A rule of tickets.
    Ticket(TicketError),
    /// The record was used before.
    Spent,
    /// Too many were used lately.
    Full,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ticket(error) => write!(out, "{}: {error}", error.code()),
            Self::Spent => write!(out, "TICKET_SPENT: this record has started its process already"),
            Self::Full => write!(out, "TICKET_SPENT: {SPENT_MAX} processes were begun in 30 s"),
        }
    }
}

/// What is trusted, for whom, and what was used.
#[derive(Debug)]
pub struct Gate {
    context: Context,
    pod: Pod,
    spent: Vec<Admitted>,
}

impl Gate {
    /// A gate of `pod`; its memory is all there from the start.
    #[must_use]
    pub fn new(context: Context, pod: Pod) -> Self {
        Self { context, pod, spent: Vec::with_capacity(SPENT_MAX) }
    }

    /// Checks and spends a ticket; `now_ns` is `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// [`Closed`]; nothing was spent then.
    pub fn admit(&mut self, admit: &Admit<'_>, now_ns: u64) -> Result<(), Closed> {
        let Admit { ticket, record, request } = *admit;
        let admitted = check(ticket, record, request, &self.pod, &self.context, now_ns)
            .map_err(Closed::Ticket)?;
        self.spent.retain(|spent| spent.deadline_ns >= now_ns);
        if self.spent.iter().any(|spent| spent.leaf_hash == admitted.leaf_hash) {
            return Err(Closed::Spent);
        }
        if self.spent.len() >= SPENT_MAX {
            return Err(Closed::Full);
        }
        self.spent.push(admitted);
        Ok(())
    }
}
