//! Kind `mutate`: makes buggy programs from correct ones. Kind `collect`: gathers a model's own failing programs.

mod collect;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Context, Dropped, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError,
};

use crate::judge::{Job, Outcome, Suites, Verdict, check};
use crate::packages;
use crate::sandbox::{CpuSeconds, Frame, Limits, Sandbox, SandboxError, Worker};
use crate::verify::check_limits;

pub use collect::Collect;

/// The kinds of bug that are on unless told otherwise: edits of expressions.
pub const KINDS: &[&str] = &["operator", "comparison", "constant", "variable", "range", "condition", "init", "return"];

/// Further kinds, on where asked for: edits of calls, statements and control flow.
pub const MORE_KINDS: &[&str] = &["call", "argument", "statement", "loop", "branch", "slice", "type", "assignment"];

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
    /// Kinds of bug, taken in turn: operator, comparison, constant, variable, range, condition, init, return (these
    /// are on unless told otherwise), call, argument, statement, loop, branch, slice, type, assignment.
    pub kinds: Vec<String>,
    /// How often a kind is tried beside the others, which have 1: `{ call = 2, variable = 0.5, init = 0 }`. A kind
    /// named here is on whether or not it stands in `kinds`; 0 turns it off.
    pub frequencies: BTreeMap<String, f64>,
    /// CPU time of one check, in seconds.
    pub cpu_limit_s: CpuSeconds,
    /// Memory of one check, in bytes.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// Third-party packages that programs may import: a virtual environment, or a folder that `pip install --target`
    /// filled. Names, versions and files of the packages count in the key.
    pub packages: Option<String>,
    /// Modules imported once per worker, not by each program: `["numpy", "pandas"]`.
    pub warm: Vec<String>,
    /// Seed of the choice among mutants; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, .. } = Limits::default();
        let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
        Self {
            per_problem: 1,
            kinds,
            frequencies: BTreeMap::new(),
            cpu_limit_s: cpu_s,
            memory_bytes,
            packages: None,
            warm: Vec::new(),
            seed: 0,
        }
    }
}

impl Params {
    /// The kinds that are on, with their frequencies.
    fn weights(&self) -> BTreeMap<&str, f64> {
        let named = self.frequencies.iter().map(|(kind, weight)| (kind.as_str(), *weight));
        let mut weights: BTreeMap<&str, f64> =
            self.kinds.iter().map(|kind| (kind.as_str(), 1.0)).chain(named).collect();
        weights.retain(|_, weight| *weight > 0.0);
        weights
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let unknown = |kind: &&String| !KINDS.iter().chain(MORE_KINDS).any(|known| known == kind);
        let named =
            [("kinds", self.kinds.iter().find(unknown)), ("frequencies", self.frequencies.keys().find(unknown))];
        for (param, kind) in named {
            if let Some(kind) = kind {
                let message = format!("there is no kind of bug `{kind}`");
                let help = Some(format!("kinds: {}, {}", KINDS.join(", "), MORE_KINDS.join(", ")));
                return Err(ParamError { param, message, help });
            }
        }
        if let Some((kind, weight)) = self.frequencies.iter().find(|(_, weight)| !(0.0..=1e6).contains(*weight)) {
            let message = format!("`{kind}` has the frequency {weight}");
            let help = Some("a number from 0 (off), beside 1 for the others".to_owned());
            return Err(ParamError { param: "frequencies", message, help });
        }
        if self.weights().is_empty() || self.per_problem == 0 {
            let param = if self.per_problem == 0 { "per_problem" } else { "kinds" };
            let message = "makes no bug".to_owned();
            return Err(ParamError { param, message, help: Some("leave it out for the default".to_owned()) });
        }
        packages::check_warm(&self.warm)?;
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
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "breaks correct programs by small edits that some test notices";
    type Params = Params;
    type In = CorrectRow;
    type Out = BugRow;
    type Session = Sandbox;

    fn segment_items(params: &Params) -> usize {
        (512 / params.per_problem).max(8)
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        packages::environment(params.packages.as_deref(), setup)
    }

    fn open(params: &Params, _: &Inputs, cx: &Context) -> Result<Sandbox, StageError> {
        let limits = Limits { cpu_s: params.cpu_limit_s, memory_bytes: params.memory_bytes, ..Limits::default() };
        let python = packages::interpreter(params.packages.as_deref(), &params.warm, &cx.root)?;
        Ok(Sandbox::open(&python, limits, cx)?)
    }

    fn rows(
        sandbox: &mut Sandbox,
        params: &Params,
        items: &[Item<CorrectRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<BugRow>>, StageError> {
        let cancelled = || cx.cancelled();
        let jobs: Vec<Job> = items.iter().map(|item| item.row.job("")).collect();
        let suites = Suites::prepare(sandbox, &jobs, &cancelled)?;
        let done = |done: usize| cx.progress(done as u64, items.len() as u64, "");
        let broken = sandbox.map(items, &cancelled, &done, |worker, item| bugs(worker, params, &item.row, &suites))?;
        let whole: Vec<_> =
            items.iter().zip(&broken).filter(|(_, bugs)| bugs.is_empty()).map(|(item, _)| item).collect();
        let reasons =
            sandbox.map(&whole, &cancelled, &|_| {}, |worker, item| why_whole(worker, params, &item.row, &suites))?;
        reasons.iter().for_each(|reason| cx.dropped(reason));
        if !whole.is_empty() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            reasons.iter().for_each(|reason| *counts.entry(&reason.reason).or_default() += 1);
            let counts: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
            cx.note(&format!("{} of {} problems gave no bug: {}", whole.len(), items.len(), counts.join(", ")));
        }
        Ok(broken)
    }
}

/// The first mutants that some test notices.
fn bugs(worker: &mut Worker, params: &Params, row: &CorrectRow, suites: &Suites) -> Result<Vec<BugRow>, SandboxError> {
    let reference = normal(&row.reference);
    if row.verdict_on(worker, &reference, suites)? != Outcome::Pass {
        return Ok(Vec::new());
    }
    let mut bugs = Vec::new();
    let most = params.per_problem * TRIES;
    for (mutation, buggy) in mutants(worker, &reference, &row.problem_id, &params.weights(), params.seed, most)? {
        if bugs.len() == params.per_problem {
            break;
        }
        // A mutant that hangs or bursts is no repair task: its trace says nothing.
        if matches!(row.verdict_on(worker, &buggy, suites)?, Outcome::Fail | Outcome::Error) {
            bugs.push(BugRow { buggy, mutation });
        }
    }
    Ok(bugs)
}

/// Why a problem gives no bug.
fn why_whole(worker: &mut Worker, params: &Params, row: &CorrectRow, suites: &Suites) -> Result<Dropped, SandboxError> {
    let reference = normal(&row.reference);
    let verdict = row.checked(worker, &reference, suites)?;
    if verdict.outcome != Outcome::Pass {
        let example = format!("`{}`: {}: {}", row.problem_id, verdict.outcome, verdict.detail);
        return Ok(Dropped::new(1, "the reference fails its own tests")
            .example(example.trim_end_matches(": "))
            .help("look at its `setup` and its tests, or raise `cpu_limit_s` or `memory_bytes`"));
    }
    let (reason, help) = match mutants(worker, &reference, &row.problem_id, &params.weights(), params.seed, 1)?
        .is_empty()
    {
        true => ("no edit of these kinds applies", "add kinds of bug (`kinds`, `frequencies`)"),
        false => ("no mutant fails a test", "add tests with the kind `differential`, or kinds of bug (`frequencies`)"),
    };
    Ok(Dropped::new(1, reason).example(format!("`{}`", row.problem_id)).help(help))
}

/// The interpreter reads these line ends alike; edits count lines by `\n` alone.
pub(crate) fn normal(program: &str) -> String {
    program.replace("\r\n", "\n").replace('\r', "\n")
}

/// Different mutants of a program that compile, at most `most`, with their kinds; the seed and the problem choose them.
pub(crate) fn mutants(
    worker: &mut Worker,
    reference: &str,
    problem_id: &str,
    weights: &BTreeMap<&str, f64>,
    seed: u64,
    most: usize,
) -> Result<Vec<(String, String)>, SandboxError> {
    let kinds: Vec<String> = weights.iter().map(|(kind, weight)| format!("{kind}={weight}")).collect();
    let (kinds, seed, most) = (kinds.join(","), seed.to_string(), most.to_string());
    let reply = worker.call("mutate", &[reference, &seed, problem_id, &kinds, &most].map(str::as_bytes))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mutant = |frame: &Frame| match frame.as_slice() {
        [tag, kind, source] if tag == b"mutant" => Some((text(kind), text(source))),
        _ => None,
    };
    Ok(reply.frames.iter().filter_map(mutant).collect())
}

impl CorrectRow {
    /// A program to be held against the row's tests.
    pub(crate) fn job(&self, source: &str) -> Job {
        Job {
            source: source.to_owned(),
            setup: self.setup.clone(),
            tests: self.tests.clone(),
            reference: Some(self.reference.clone()),
            ..Job::default()
        }
    }

    /// How a program fares against the row's tests.
    pub(crate) fn verdict_on(
        &self,
        worker: &mut Worker,
        source: &str,
        suites: &Suites,
    ) -> Result<Outcome, SandboxError> {
        Ok(self.checked(worker, source, suites)?.outcome)
    }

    fn checked(&self, worker: &mut Worker, source: &str, suites: &Suites) -> Result<Verdict, SandboxError> {
        check(worker, &self.job(source), suites)
    }
}

#[cfg(test)]
mod tests;
