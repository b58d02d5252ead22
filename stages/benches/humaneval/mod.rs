//! HumanEval for the benchmarks.

use std::path::Path;
use std::process::{Command, Stdio};

use tracetune::judge::Job;
use tracetune_engine::cache::Store;
use tracetune_engine::runs;
use tracetune_engine::table::read_column;

/// The reference solutions and their tests, as the kind `dataset` imports them.
pub(crate) fn jobs(data: &Path) -> Result<Vec<Job>, Box<dyn std::error::Error>> {
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
    Ok(zipped
        .map(|((source, setup), tests)| Job { reference: Some(source.clone()), source, setup, tests, ..Job::default() })
        .collect())
}
