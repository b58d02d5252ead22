//! The tracer beside others: CPU time a line on HumanEval's reference solutions and tests.
//!
//! `TRACETUNE_HUMANEVAL=HumanEval.jsonl TRACETUNE_PEERS_PYTHON=python3.11:python3.13 cargo bench -p tracetune --bench trace`
//!
//! Each interpreter runs `trace_peers.py`, in which the tracers take turns on each problem; PySnooper is one of them where
//! it is installed. Without `TRACETUNE_PEERS_PYTHON` the interpreter is the one that runs candidates.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tracetune::python::Python;

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
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("| CPython | tracer | µs a line | times {FLOOR} |\n| --- | --- | --: | --: |");
    for python in pythons {
        let mut command = Command::new(&python);
        command.arg(here.join("benches/trace_peers.py")).arg(here.join("src")).arg(&data).arg(ROUNDS);
        let output = command.output().map_err(|error| format!("{}: {error}", python.display()))?;
        let figures: Figures = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("{}: {}", python.display(), String::from_utf8_lossy(&output.stderr)))?;
        let seconds = |name: &str| figures.seconds.iter().find(|(own, _)| own == name).map_or(0.0, |(_, time)| *time);
        let cost = |time: f64| (time - seconds(BASELINE)) / figures.lines * 1e6;
        for (name, time) in figures.seconds.iter().filter(|(name, _)| name != BASELINE) {
            let (own, floor) = (cost(*time), cost(seconds(FLOOR)));
            println!("| {} | {name} | {own:.2} | {:.1} |", figures.python, own / floor);
        }
    }
    Ok(())
}
