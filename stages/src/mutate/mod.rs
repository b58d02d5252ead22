//! Kind `mutate`: makes buggy programs from correct ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

use crate::python::Python;
use crate::sandbox::{Limits, Sandbox, SandboxError, Worker};
use crate::verify::{Job, Outcome, Tests, check, check_limits};

/// The kinds of bug.
pub const KINDS: &[&str] = &["operator", "comparison", "constant", "variable", "range", "condition", "init", "return"];

/// Mutants that are tried at the most for each bug wanted.
const TRIES: usize = 8;

record! {
    /// What `mutate` reads.
    pub struct CorrectRow {
        /// The problem; it addresses the random choices.
        pub problem_id: String,
        /// The correct program.
        pub reference: String,
        /// The tests.
        pub tests: Vec<String>,
        /// Code that runs before the tests.
        pub setup: String,
    }
    /// What `mutate` adds.
    pub struct BugRow {
        /// The program with one bug.
        pub buggy: String,
        /// The kind of bug.
        pub mutation: String,
    }
}

/// What may stand under `kind = "mutate"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Different bugs a problem, as far as there are so many.
    #[schemars(range(min = 1, max = 1000))]
    pub per_problem: usize,
    /// Kinds of bug, taken in turn: operator, comparison, constant, variable, range, condition, init, return.
    pub kinds: Vec<String>,
    /// CPU time of one check, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub cpu_limit_s: u32,
    /// Memory of one check, in bytes.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// Seed of the choice among mutants; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, .. } = Limits::default();
        let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
        Self { per_problem: 1, kinds, cpu_limit_s: cpu_s, memory_bytes, seed: 0 }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let unknown = self.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str()));
        if let Some(kind) = unknown {
            let message = format!("there is no kind of bug `{kind}`");
            return Err(ParamError { param: "kinds", message, help: Some(format!("kinds: {}", KINDS.join(", "))) });
        }
        if self.kinds.is_empty() || self.per_problem == 0 {
            let param = if self.kinds.is_empty() { "kinds" } else { "per_problem" };
            let message = "makes no bug".to_owned();
            return Err(ParamError { param, message, help: Some("leave it out for the default".to_owned()) });
        }
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

/// Breaks each correct program by one small edit of its syntax tree: what compiles and fails at least one test is kept.
/// A problem whose reference fails its tests, or that no edit breaks, gives no rows; a note counts them.
///
/// # Errors
/// [`StageError::Input`] if a test does not parse; [`StageError::Environment`] without Python.
pub struct Mutate;

impl RowStage for Mutate {
    const KIND: &'static str = "mutate";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "breaks correct programs by small edits that some test notices";
    type Params = Params;
    type In = CorrectRow;
    type Out = BugRow;
    type Session = Sandbox;

    fn environment(_: &Params, _: &Setup) -> Result<Environment, StageError> {
        Ok(Python::find()?.environment())
    }

    fn open(params: &Params, _: &Inputs, cx: &Context) -> Result<Sandbox, StageError> {
        let limits = Limits { cpu_s: params.cpu_limit_s, memory_bytes: params.memory_bytes, ..Limits::default() };
        Ok(Sandbox::start(&Python::find()?, limits, cx.threads)?)
    }

    fn rows(
        sandbox: &mut Sandbox,
        params: &Params,
        items: &[Item<CorrectRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<BugRow>>, StageError> {
        let cancelled = || cx.cancelled();
        let tests = Tests::prepare(sandbox, items.iter().flat_map(|item| &item.row.tests), &cancelled)?;
        let done = |done: usize| cx.progress(done as u64, items.len() as u64, "");
        let broken = sandbox.map(items, &cancelled, &done, |worker, item| bugs(worker, params, &item.row, &tests))?;
        let whole = broken.iter().filter(|bugs| bugs.is_empty()).count();
        if whole > 0 {
            cx.note(&format!("{whole} of {} problems could not be broken, or fail their own tests", items.len()));
        }
        Ok(broken)
    }
}

/// The first mutants that some test notices.
fn bugs(worker: &mut Worker, params: &Params, row: &CorrectRow, tests: &Tests) -> Result<Vec<BugRow>, SandboxError> {
    let verdict = |worker: &mut Worker, source: &str| -> Result<Outcome, SandboxError> {
        let job = Job { source: source.to_owned(), setup: row.setup.clone(), tests: row.tests.clone() };
        Ok(check(worker, &job, tests)?.outcome)
    };
    // The interpreter reads these line ends alike; edits count lines by `\n` alone.
    let reference = row.reference.replace("\r\n", "\n").replace('\r', "\n");
    if verdict(worker, &reference)? != Outcome::Pass {
        return Ok(Vec::new());
    }
    let kinds = params.kinds.join(",");
    let (seed, most) = (params.seed.to_string(), (params.per_problem * TRIES).to_string());
    let fields = [&reference, &seed, &row.problem_id, &kinds, &most].map(|field| field.as_bytes());
    let reply = worker.call("mutate", &fields)?;
    let mut bugs = Vec::new();
    for frame in &reply.frames {
        let [tag, kind, _line, _before, _after, source] = frame.as_slice() else { continue };
        if tag != b"mutant" || bugs.len() == params.per_problem {
            continue;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let source = text(source);
        // A mutant that hangs or bursts is no repair task: its trace says nothing.
        if matches!(verdict(worker, &source)?, Outcome::Fail | Outcome::Error) {
            bugs.push(BugRow { buggy: source, mutation: text(kind) });
        }
    }
    Ok(bugs)
}

#[cfg(test)]
mod tests;
