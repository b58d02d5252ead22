//! The figures of the README: tokens/s decoding and training, programs/s tracing and verifying, and a rerun with
//! nothing to do. `cargo bench -p tracetune --bench figures [-- THREADS]`
//!
//! Runs the real binary on a small pipeline in a temporary project, and reads the run's own telemetry.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use tracetune_engine::cache::Store;
use tracetune_engine::runs::{self, Run};
use tracetune_engine::table::read_column;

const PIPELINE: &str = r#"
[pipeline]
name = "figures"
seed = 1
[stages.seeds]
kind = "dataset"
source = "builtin:mini-python"
sizes = { seed = 300 }
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { train = 400 }
[stages.demonstrations]
kind = "trace"
rows = "seeds"
[stages.traces]
kind = "trace"
rows = "problems"
[stages.tiny]
kind = "model"
source = "builtin:tiny"
[stages.base]
kind = "train"
model = "tiny"
rows = "demonstrations"
epochs = 2
[stages.samples]
kind = "sample"
model = "base"
rows = "traces"
n = 16
[stages.verdicts]
kind = "verify"
rows = "samples"
"#;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let threads = std::env::args().skip(1).find(|argument| argument.parse::<u32>().is_ok()).unwrap_or("2".to_owned());
    let project = tempfile::tempdir()?;
    std::fs::create_dir(project.path().join(".tracetune"))?;
    std::fs::write(project.path().join("figures.toml"), PIPELINE)?;
    tracetune(project.path(), &threads)?;
    let mut again: Vec<f64> = (0..9).map(|_| tracetune(project.path(), &threads)).collect::<Result<_, _>>()?;
    again.sort_by(f64::total_cmp);

    let store = Store::open(project.path().join(".tracetune"))?;
    let all = runs::list(&store)?;
    let run = all.first().ok_or("no run")?;
    let tokens = |node: &str, output: &str| -> Result<f64, Failure> {
        let table = run.table(&store, node, Some(output))?;
        Ok(match output {
            "curve" => read_column::<i64>(&table, "tokens")?.last().copied().unwrap_or(0) as f64,
            _ => read_column::<i32>(&table, "tokens")?.iter().map(|&count| f64::from(count)).sum(),
        })
    };
    println!("{threads} threads, {}", processor());
    println!("| what | figure |\n| --- | --- |");
    line("decoding, 400 prompts × 16 samples", tokens("samples", "rows")? / wall(run, "samples")?, "tokens/s");
    line("training, packed rows, context included", tokens("base", "curve")? / wall(run, "base")?, "tokens/s");
    let rows = |node: &str| -> Result<f64, Failure> { Ok(run.table(&store, node, None)?.num_rows() as f64) };
    line("tracing", rows("traces")? / wall(run, "traces")?, "programs/s");
    let fixes = distinct_fixes(run, &store)?;
    line("verifying, isolation on", fixes / wall(run, "verdicts")?, "programs/s");
    line("whole rerun with nothing to do, median of 9", again[4] * 1000.0, "ms");
    Ok(())
}

fn line(what: &str, figure: f64, unit: &str) {
    println!("| {what} | {figure:.0} {unit} |");
}

/// One run of the binary, in seconds.
fn tracetune(project: &Path, threads: &str) -> Result<f64, Failure> {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_tracetune"))
        .current_dir(project)
        .args(["run", "figures.toml", "-q", "--threads", threads])
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(start.elapsed().as_secs_f64())
    } else {
        Err(format!("the run ended with {status}").into())
    }
}

/// A stage's wall time in seconds.
fn wall(run: &Run, node: &str) -> Result<f64, Failure> {
    let events = run.events()?;
    let finished = events.iter().find(|event| event["event"] == "stage_finished" && event["node"] == node);
    finished.and_then(|event| event["wall_s"].as_f64()).ok_or_else(|| format!("`{node}` did not finish").into())
}

/// Programs that verify really ran: equal rows are run once, empty fixes never.
fn distinct_fixes(run: &Run, store: &Store) -> Result<f64, Failure> {
    let table = run.table(store, "verdicts", None)?;
    let problems = read_column::<String>(&table, "problem_id")?;
    let fixes = read_column::<String>(&table, "fix")?;
    let distinct: std::collections::BTreeSet<_> =
        problems.iter().zip(&fixes).filter(|(_, fix)| !fix.is_empty()).collect();
    Ok(distinct.len() as f64)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("unknown processor".to_owned(), |(_, name)| name.to_owned())
}
