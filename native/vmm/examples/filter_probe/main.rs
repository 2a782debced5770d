//! Makes one system call in a child of its own under one of the VMM's real filters, and says what became of the child.
//! For the tests in `tests/seccomp`; an example, so that `cargo test` builds it and no installation does.
//!
//! A question is a line `KIND WAY NUMBER A0 A1 A2 A3 A4 A5` (the last seven in hexadecimal); WAY is
//!
//! - `dry`: below the filter lies another that answers every call with an error that does not exist. The kernel takes the
//!   stricter verdict of the two, so a call is killed or comes back, and is never made;
//! - `real`: the call is made;
//! - `i386`: as `dry`, through the 32-bit entry, where numbers mean other calls.
//!
//! The answer is `killed` (SIGSYS), `allowed` (the call came back with the error), `signal N`, or `ended N`: the call came
//! back with errno N, 0 for none, or ended the process with that code.
//!
//! The arguments are the digests of the filters that the caller means, so that a probe which was built with other lists
//! answers nothing: cargo builds an example with `cargo test`, not with a single test of it.

#[expect(unsafe_code, reason = "forks, and makes arbitrary system calls")]
mod probe_unsafe;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use casemate_vmm::failure::Failure;
use casemate_vmm::seccomp::{Filter, Kind, compile};

use probe_unsafe::Way;

/// One question.
struct Question<'a> {
    filter: &'a Filter,
    way: Way,
    /// Number and arguments.
    call: [u64; 7],
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("filter_probe: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let filters = Kind::ALL
        .map(|kind| compile(kind).map(|filter| (kind, filter)))
        .into_iter()
        .collect::<Result<Vec<_>, Failure>>()
        .map_err(|failure| failure.to_string())?;
    let digests = filters.iter().map(|(_, filter)| filter.digest.to_string());
    if !digests.eq(std::env::args().skip(1)) {
        return Err("built with other filters than are asked about: run all of `cargo test`".into());
    }
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let question = parse(&line, &filters).ok_or_else(|| format!("not a question: {line}"))?;
        let answer = probe_unsafe::ask(question.filter, question.way, question.call);
        writeln!(output, "{answer}").map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn parse<'a>(line: &str, filters: &'a [(Kind, Filter)]) -> Option<Question<'a>> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let (_, filter) = filters.iter().find(|(kind, _)| kind.name() == name)?;
    let way = match words.next()? {
        "dry" => Way::Dry,
        "real" => Way::Real,
        "i386" => Way::I386,
        _ => return None,
    };
    let numbers = words.map(|word| u64::from_str_radix(word, 16)).collect::<Result<Vec<_>, _>>();
    Some(Question { filter, way, call: numbers.ok()?.try_into().ok()? })
}
