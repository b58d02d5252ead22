//! The tracer beside others: CPU time a line on HumanEval's reference solutions and tests, and where little changes; and
//! what a trace costs beside the verdict, both from the sandbox.
//!
//! `TRACETUNE_HUMANEVAL=HumanEval.jsonl TRACETUNE_PEERS_PYTHON=python3.11:python3.13 cargo bench -p tracetune --bench trace`
//!
//! Each interpreter runs `trace_peers.py`, in which the tracers take turns on each problem; PySnooper is one of them where
//! it is installed. Without `TRACETUNE_PEERS_PYTHON` the interpreter is the one that runs candidates.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod humaneval;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;
use tracetune::judge::{Job, judge_with, prepare};
use tracetune::python::Python;
use tracetune::sandbox::{Limits, Sandbox};
use tracetune::trace::{Params, Program, ProgramRow, Session, trace};

const ROUNDS: &str = "5";
/// What the others are compared with.
const BASELINE: &str = "untraced";
const FLOOR: &str = "settrace that does nothing";

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
struct Figures {
    python: String,
    /// Lines executed in one round.
    lines: f64,
    /// CPU time of one round, by tracer.
    seconds: Vec<(String, f64)>,
    /// The same of programs of which few lines change anything.
    few_changes: FewChanges,
}

#[derive(Deserialize)]
struct FewChanges {
    lines: f64,
    seconds: Vec<(String, f64)>,
}

fn main() -> Result<(), Failure> {
    let Some(data) = std::env::var_os("TRACETUNE_HUMANEVAL").map(PathBuf::from) else {
        println!("skipped: TRACETUNE_HUMANEVAL names no HumanEval.jsonl");
        return Ok(());
    };
    let pythons = match std::env::var_os("TRACETUNE_PEERS_PYTHON") {
        Some(pythons) => std::env::split_paths(&pythons).collect(),
        None => vec![Python::find()?.executable],
    };
    beside_verdicts(&data)?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("| CPython | tracer | µs a line | times {FLOOR} | µs where little changes |");
    println!("| --- | --- | --: | --: | --: |");
    for python in pythons {
        let mut command = Command::new(&python);
        command.arg(here.join("benches/trace_peers.py")).arg(here.join("src")).arg(&data).arg(ROUNDS);
        let output = command.output().map_err(|error| format!("{}: {error}", python.display()))?;
        let figures: Figures = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("{}: {}", python.display(), String::from_utf8_lossy(&output.stderr)))?;
        let FewChanges { lines, seconds } = figures.few_changes;
        let costs = by_line(figures.lines, &figures.seconds);
        let floor = costs.iter().find(|(name, _)| *name == FLOOR).map_or(0.0, |(_, cost)| *cost);
        for ((name, cost), (_, few)) in costs.iter().zip(by_line(lines, &seconds)) {
            println!("| {} | {name} | {cost:.2} | {:.1} | {few:.2} |", figures.python, cost / floor);
        }
    }
    Ok(())
}

/// What each tracer adds to a line, in µs.
fn by_line(lines: f64, seconds: &[(String, f64)]) -> Vec<(&str, f64)> {
    let untraced = seconds.iter().find(|(name, _)| name == BASELINE).map_or(0.0, |(_, time)| *time);
    let traced = seconds.iter().filter(|(name, _)| name != BASELINE);
    traced.map(|(name, time)| (name.as_str(), (time - untraced) / lines * 1e6)).collect()
}

/// The time of a trace of each problem's first test, beside that of its verdict: one worker, in turn, the least counts.
fn beside_verdicts(data: &Path) -> Result<(), Failure> {
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), 1)?;
    let session = Session { sandbox, tokenizer: None };
    let params = Params { program: Program::Reference, ..Params::default() };
    let least = |work: &dyn Fn() -> Result<(), Failure>| -> Result<f64, Failure> {
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS.parse()? {
            let start = Instant::now();
            work()?;
            least = least.min(start.elapsed().as_secs_f64());
        }
        Ok(least)
    };
    let time_trace = |job: &Job| {
        let Job { source: reference, setup, tests, .. } = job.clone();
        let row = ProgramRow { reference, buggy: None, tests, setup };
        least(&|| Ok(trace(&session, &params, &[&row], &|| false, &|_| {}).map(drop)?))
    };
    let mut ratios = Vec::new();
    for job in humaneval::jobs(data)? {
        let job = Job { tests: job.tests.into_iter().take(1).collect(), ..job };
        let jobs = std::slice::from_ref(&job);
        let verdict = least(&|| {
            // A trace sorts its tests too.
            let tests = prepare(&session.sandbox, jobs, &|| false)?;
            Ok(judge_with(&session.sandbox, jobs, &tests, &|| false, &|_| {}).map(drop)?)
        })?;
        ratios.push(time_trace(&job)? / verdict);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share) as usize];
    println!("a test traced, times the same test verified: median {:.2}, nine in ten under {:.2}", at(0.5), at(0.9));
    let source = "def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n        total -= 1\n        i = 0\n    return total";
    let long = Job { source: source.into(), tests: vec!["assert f(3_000_000) == 0".into()], ..Job::default() };
    println!(
        "a program of nine million lines, to its budget of {} steps: {:.3} s",
        params.max_steps,
        time_trace(&long)?
    );
    Ok(())
}
