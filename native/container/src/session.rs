//! The half of the conversation that makes and runs the container: a process of its own, which keeps the privileges that
//! takes. What the agent sends is parsed by the other one first, which has none.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use casemate_vmm::failure::{Failure, failure};
use casemate_vmm::report::exit;
use casemate_wire::control::Reason;
use casemate_wire::order::Conversation;
use guest_init::boot::wait_for_unique;
use guest_init::process_unsafe::{Fork, close_all_but, fork, install_seccomp};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::runtime::Runtime;
use crate::{below, privileges};

/// Bytes of its last words that are read.
const WORDS_MAX: u64 = 512;

/// The other process, as the one without privileges sees it.
#[derive(Debug)]
pub struct Session {
    pid: Pid,
    words: File,
}

impl Session {
    /// Starts it at the other end of `pipe`. Every other descriptor of this process is closed in it.
    ///
    /// # Errors
    /// `IO` when there is no process for it.
    pub fn start(pipe: OwnedFd, runtime: Runtime) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            failure(Reason::Io, format_args!("the container's session: {error}"))
        };
        let (words, says) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        match fork().map_err(failed)? {
            Fork::Parent(pid) => {
                drop((pipe, says, runtime));
                Ok(Self { pid, words: words.into() })
            }
            Fork::Child => match run(&pipe, &says, &runtime) {
                Ok(()) => exit(0),
                Err(text) => {
                    let _ = File::from(says).write_all(text.as_bytes());
                    exit(1)
                }
            },
        }
    }

    /// Waits for its end, once its pipe was shut down: it clears the container away first.
    ///
    /// # Errors
    /// Its last words.
    pub fn join(mut self) -> Result<(), String> {
        let status = waitpid(Some(self.pid), WaitOptions::empty());
        if matches!(status, Ok(Some((_, status))) if status.exit_status() == Some(0)) {
            return Ok(());
        }
        let mut words = Vec::new();
        let _ = Read::by_ref(&mut self.words).take(WORDS_MAX).read_to_end(&mut words);
        Err(match words.as_slice() {
            [] => "the session ended and said nothing".to_owned(),
            words => String::from_utf8_lossy(words).into_owned(),
        })
    }
}

fn run(pipe: &OwnedFd, says: &OwnedFd, runtime: &Runtime) -> Result<(), String> {
    let mut kept = vec![pipe.as_fd(), says.as_fd()];
    kept.extend(runtime.descriptors());
    close_all_but(&kept).map_err(|error| format!("close descriptors: {error}"))?;
    // What is forked from here on has it: the runtime, the app, and all that comes beside it.
    install_seccomp(&below::NO_EVENTS.concat())
        .map_err(|error| format!("forbid the kernel's events: {error}"))?;
    privileges::keep(runtime.capabilities)
        .map_err(|error| format!("give up privileges: {error}"))?;
    let answer = wait_for_unique(pipe, &mut Conversation::restored())
        .and_then(|_| guest_init::session::run(pipe, runtime).map_err(|error| error.to_string()));
    runtime.clear_away();
    answer
}
