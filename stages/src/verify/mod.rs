//! Kind `verify`: runs each fix against its problem's tests, in the sandbox.
//!
//! Expected values are compared here, outside the process that runs the fix (`assert f(x) == literal`, nearly all of
//! MBPP): no `__eq__` and no exit status can forge a pass. Other tests run in a second process that calls the fix from
//! outside (`remote.py`). Where they hand it what can't be sent, a function say, they run beside it, and the row's
//! detail says `guarded`.

mod prepare;
mod verdict;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

use crate::packages;
use crate::sandbox::{Bounds, Call, CpuSeconds, Isolation, Limits, Sandbox, SandboxError, Worker};
pub use prepare::Tests;
pub(crate) use prepare::{BadTest, Mode, Test};
pub use verdict::{Outcome, Verdict};

/// A program to check and the tests to check it with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The whole program.
    pub source: String,
    /// Code that runs after it and before the tests.
    pub setup: String,
    /// Statements, each a test; mostly `assert f(x) == literal`.
    pub tests: Vec<String>,
}

/// Checks every job; verdicts in the jobs' order. `on_done` hears how many are done.
///
/// # Errors
/// A test does not parse ([`StageError::Input`]), the sandbox failed, or the work was cancelled.
pub fn verify(
    sandbox: &Sandbox,
    jobs: &[Job],
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Verdict>, StageError> {
    verify_with(sandbox, jobs, &prepare_tests(sandbox, jobs, cancelled)?, cancelled, on_done)
}

/// Sorts the jobs' tests, as it is done once for all candidates of a problem.
///
/// # Errors
/// As [`verify`].
pub fn prepare_tests(
    sandbox: &Sandbox,
    jobs: &[Job],
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Tests, StageError> {
    Ok(Tests::prepare(sandbox, jobs.iter().flat_map(|job| &job.tests), cancelled)?)
}

/// As [`verify`], with tests that are sorted already.
///
/// # Errors
/// The sandbox failed, or the work was cancelled.
pub fn verify_with(
    sandbox: &Sandbox,
    jobs: &[Job],
    tests: &Tests,
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Verdict>, StageError> {
    // What waited too long or was killed is tried once more: it may have been the machine.
    let work = |worker: &mut Worker, job: &Job| check(worker, job, tests);
    Ok(sandbox.map_twice(jobs, cancelled, on_done, work, |verdict| verdict.doubt)?)
}

/// Checks one program.
pub(crate) fn check(worker: &mut Worker, job: &Job, tests: &Tests) -> Result<Verdict, SandboxError> {
    let tests: Vec<&Test> = job.tests.iter().filter_map(|test| tests.get(test)).collect();
    if job.source.trim().is_empty() {
        return Ok(Verdict::new(Outcome::Invalid, 0, tests.len(), "empty"));
    }
    if job.source.contains('\0') {
        return Ok(Verdict::new(Outcome::Invalid, 0, tests.len(), "null byte"));
    }
    let source = job.source.strip_prefix('\u{feff}').unwrap_or(&job.source).as_bytes();
    let sorted: Vec<&[u8]> = tests.iter().flat_map(|test| [test.mode.as_bytes(), &test.compiled]).collect();
    let cpu_s = worker.limits().cpu_s;
    let apart = tests.iter().any(|test| test.mode != Mode::Value);
    if apart {
        let beside = [&[&b"judge"[..], job.setup.as_bytes()], &sorted[..]].concat();
        let (candidate, judge) = worker.call_pair("remote", &[b"serve", source], &beside)?;
        if let Some(verdict) = Verdict::judge_pair(candidate, judge, &tests, cpu_s) {
            return Ok(verdict);
        }
    }
    let fields = [&[source, job.setup.as_bytes()], &sorted[..]].concat();
    let mut verdict = Verdict::judge(
        &worker.run(Call::new("verify", &fields).bounds(Bounds::frames(tests.len() + 3)))?,
        &tests,
        cpu_s,
    );
    if apart {
        verdict.detail = match verdict.detail.as_str() {
            "" => "guarded".to_owned(),
            detail => format!("{detail} (guarded)"),
        };
    }
    Ok(verdict)
}

/// Runs each fix against the tests and says how it went, in one word of a closed set.
///
/// # Errors
/// [`StageError::Input`] if a test does not parse; [`StageError::Environment`] without Python. A fix that hangs,
/// crashes or does not compile is a row with a verdict.
pub struct Verify;

/// What may stand under `kind = "verify"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// CPU time that a fix may use for all tests together, in seconds.
    pub cpu_limit_s: CpuSeconds,
    /// Memory that it may use, in bytes, the interpreter's own 30 MB included.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// What it may print, in bytes.
    #[schemars(range(min = 0))]
    pub output_bytes: u64,
    /// What the files may take that a program writes, in bytes; 0: it may write none.
    #[schemars(range(min = 0))]
    pub scratch_bytes: u64,
    /// Third-party packages that programs may import: a virtual environment, or a folder that `pip install --target`
    /// filled. Names, versions and files of the packages count in the key.
    pub packages: Option<String>,
    /// Modules imported once per worker, not by each program: `["numpy", "pandas"]`.
    pub warm: Vec<String>,
    /// The walls that must be there: `full`, `require`, `available` or `unsafe`.
    pub isolation: Isolation,
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, output_bytes, scratch_bytes, isolation } = Limits::default();
        let (packages, warm) = (None, Vec::new());
        Self { cpu_limit_s: cpu_s, memory_bytes, output_bytes, scratch_bytes, packages, warm, isolation }
    }
}

impl Params {
    fn limits(&self) -> Limits {
        let Self { cpu_limit_s: cpu_s, memory_bytes, output_bytes, scratch_bytes, isolation, .. } = *self;
        Limits { cpu_s, memory_bytes, output_bytes, scratch_bytes, isolation }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        packages::check_warm(&self.warm)?;
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

/// Checks the two limits that several kinds share.
pub(crate) fn check_limits(cpu_limit_s: CpuSeconds, memory_bytes: u64) -> Result<(), ParamError> {
    let wrong = |param, message: &str, help: &str| {
        Err(ParamError { param, message: message.to_owned(), help: Some(help.to_owned()) })
    };
    if !cpu_limit_s.is_possible() {
        let range = format!("must be between {} and {}", CpuSeconds::LEAST, CpuSeconds::MOST);
        return wrong("cpu_limit_s", &range, "2 suits small functions");
    }
    if memory_bytes < 64 << 20 {
        return wrong("memory_bytes", "must be at least 67108864 (64 MiB)", "536870912 is the default");
    }
    Ok(())
}

record! {
    /// What `verify` reads.
    pub struct FixRow {
        /// The whole fixed program; empty when nothing could be parsed.
        pub fix: String,
        /// The tests.
        pub tests: Vec<String>,
        /// Code that runs before the tests.
        pub setup: String,
    }
    /// What `verify` adds.
    pub struct VerdictRow {
        /// pass, fail, error, timeout, limit, crash or invalid.
        pub verdict: String,
        /// Tests passed.
        pub passed: i32,
        /// Tests.
        pub total: i32,
        /// A letter a test, in their order: `.` passed, `F` false, `E` exception, `T` timeout, `L` limit, `C` crash, `-` not reached.
        pub results: String,
        /// What the first test that was not passed did, in a few words.
        pub detail: String,
    }
}

impl RowStage for Verify {
    const KIND: &'static str = "verify";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "runs each fix against the tests, in the sandbox";
    type Params = Params;
    type In = FixRow;
    type Out = VerdictRow;
    type Session = Sandbox;

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        packages::environment(params.packages.as_deref(), setup)
    }

    fn open(params: &Params, _: &Inputs, cx: &Context) -> Result<Sandbox, StageError> {
        let python = packages::interpreter(params.packages.as_deref(), &params.warm, &cx.root)?;
        let sandbox = Sandbox::open(&python, params.limits(), cx)?;
        cx.note(&format!("sandbox: {}", sandbox.layers()));
        Ok(sandbox)
    }

    fn rows(
        sandbox: &mut Sandbox,
        _: &Params,
        items: &[Item<FixRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<VerdictRow>>, StageError> {
        let job = |row: &FixRow| Job { source: row.fix.clone(), setup: row.setup.clone(), tests: row.tests.clone() };
        let jobs: Vec<Job> = items.iter().map(|item| job(&item.row)).collect();
        let total = items.len() as u64;
        let verdicts = verify(sandbox, &jobs, &|| cx.cancelled(), &|done| cx.progress(done as u64, total, ""))?;
        Ok(verdicts.into_iter().map(|verdict| vec![verdict.into()]).collect())
    }
}

impl From<Verdict> for VerdictRow {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict: verdict.outcome.to_string(),
            passed: verdict.passed as i32,
            total: verdict.total as i32,
            results: verdict.results(),
            detail: verdict.detail,
        }
    }
}

#[cfg(test)]
mod apart;
#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(crate) mod tests;
