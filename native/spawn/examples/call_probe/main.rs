//! Makes system calls under the real filters, each in a process of its own, and tells what became of them.
//!
//! A line of standard input is a question: `spawn` or `worker`, then a number and six arguments, all decimal. A worker's
//! calls go through both filters, as they do. Answers, a line each: `permitted`, `killed`, or `errno N`. No call is ever
//! made: beneath the filters lies another that stops all.

#[expect(unsafe_code, reason = "raw system calls in children")]
mod probe_unsafe;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use casemate_spawn::filter::{Filter, Kind};

fn main() -> ExitCode {
    match answer() {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn answer() -> Option<()> {
    let spawn = Filter::compile(Kind::Spawn).ok()?;
    let worker = Filter::compile(Kind::Worker).ok()?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line.ok()?;
        let (kind, numbers) = line.split_once(' ')?;
        let numbers: Vec<u64> =
            numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let filters: &[&Filter] = if kind == "worker" { &[&spawn, &worker] } else { &[&spawn] };
        let answer = probe_unsafe::ask(filters, numbers.try_into().ok()?);
        writeln!(output, "{answer}").ok()?;
    }
    output.flush().ok()
}
