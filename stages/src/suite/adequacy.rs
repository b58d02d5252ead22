//! Kind `adequacy`: how much a problem's tests can tell.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

use crate::judge::{Job, Outcome, Suites};
use crate::mutate::{CorrectRow, KINDS, MORE_KINDS, mutants, normal};
use crate::packages;
use crate::sandbox::{Bounds, Call, CpuSeconds, Limits, Sandbox, SandboxError, Worker};
use crate::verify::check_limits;

/// CPU time for the traced run, beside that of a plain one: tracing is slow.
const TRACED: u32 = 20;

record! {
    /// What `adequacy` adds.
    pub struct AdequacyRow {
        /// Mutants of the reference that were tried; 0 if the reference fails its own tests.
        pub mutants: i32,
        /// Of them, those that some test notices.
        pub killed: i32,
        /// Lines of the reference's functions that can run.
        pub lines: i32,
        /// Of them, those that the tests run.
        pub covered: i32,
    }
}

/// What may stand under `kind = "adequacy"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Mutants tried a problem, at the most; all kinds of bug take turns.
    #[schemars(range(min = 1, max = 1000))]
    pub mutants: usize,
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
        // A mutant that hangs is noticed; a second tells as much as two.
        Self {
            mutants: 40,
            cpu_limit_s: CpuSeconds(1.0),
            memory_bytes: Limits::default().memory_bytes,
            packages: None,
            warm: Vec::new(),
            seed: 0,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        if !(1..=1000).contains(&self.mutants) {
            let message = "must be between 1 and 1000".to_owned();
            return Err(ParamError { param: "mutants", message, help: Some("40 is the default".to_owned()) });
        }
        packages::check_warm(&self.warm)?;
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

/// Measures tests by mutation and by coverage: how many mutants of the reference they notice, and how many lines of
/// its functions they run.
///
/// DeMillo, Lipton and Sayward 1978 (doi:10.1109/C-M.1978.218136) for mutants. One that means the same as the reference
/// can't be told from one that is overlooked, so that even the best tests may not notice all.
pub struct Adequacy;

impl RowStage for Adequacy {
    const KIND: &'static str = "adequacy";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "how many mutants of the reference the tests notice, how many of its lines they run";
    type Params = Params;
    type In = CorrectRow;
    type Out = AdequacyRow;
    type Session = Sandbox;

    fn segment_items(_: &Params) -> usize {
        64
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
    ) -> Result<Vec<Vec<AdequacyRow>>, StageError> {
        let cancelled = || cx.cancelled();
        let jobs: Vec<Job> = items.iter().map(|item| item.row.job("")).collect();
        let suites = Suites::prepare(sandbox, &jobs, &cancelled)?;
        let done = |done: usize| cx.progress(done as u64, items.len() as u64, "");
        let rows = sandbox.map(items, &cancelled, &done, |worker, item| measure(worker, params, &item.row, &suites))?;
        Ok(rows.into_iter().map(|row| vec![row]).collect())
    }
}

fn measure(
    worker: &mut Worker,
    params: &Params,
    row: &CorrectRow,
    suites: &Suites,
) -> Result<AdequacyRow, SandboxError> {
    let reference = normal(&row.reference);
    let (lines, covered) = coverage(worker, &reference, row)?;
    let mut measured = AdequacyRow { mutants: 0, killed: 0, lines, covered };
    if row.verdict_on(worker, &reference, suites)? == Outcome::Pass {
        let weights: BTreeMap<&str, f64> = KINDS.iter().chain(MORE_KINDS).map(|kind| (*kind, 1.0)).collect();
        for (_, mutant) in mutants(worker, &reference, &row.problem_id, &weights, params.seed, params.mutants)? {
            measured.mutants += 1;
            measured.killed += i32::from(row.verdict_on(worker, &mutant, suites)? != Outcome::Pass);
        }
    }
    Ok(measured)
}

/// Lines that can run, and those that do.
fn coverage(worker: &mut Worker, reference: &str, row: &CorrectRow) -> Result<(i32, i32), SandboxError> {
    let mut fields = vec![reference.as_bytes(), row.setup.as_bytes()];
    fields.extend(row.tests.iter().map(|test| test.as_bytes()));
    let cpu_s = worker.limits().cpu_s.times(TRACED);
    let reply = worker.run(Call::new("cover", &fields).cpu(cpu_s).bounds(Bounds::frames(2)))?;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(match reply.frames.first().map(Vec::as_slice) {
        Some([tag, lines, covered]) if tag == b"lines" => (number(lines), number(covered)),
        _ => (0, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAMP: &str = "import math\n\ndef clamp(x, low, high):\n    if x < low:\n        return low\n    if x > high:\n        return high\n    return x\n";

    fn measured(reference: &str, tests: &[&str]) -> Option<AdequacyRow> {
        let sandbox = crate::judge::tests::sandbox()?;
        let row = CorrectRow {
            problem_id: "p".to_owned(),
            reference: reference.to_owned(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
            setup: String::new(),
        };
        let suites = Suites::prepare(sandbox, &[row.job("")], &|| false).unwrap();
        let measure = |worker: &mut Worker, row: &CorrectRow| measure(worker, &Params::default(), row, &suites);
        Some(sandbox.map(&[row], &|| false, &|_| {}, measure).unwrap().remove(0))
    }

    #[test]
    fn more_tests_notice_more_mutants_and_run_more_lines() {
        let all = ["assert clamp(5, 1, 9) == 5", "assert clamp(0, 1, 9) == 1", "assert clamp(10, 1, 9) == 9"];
        let Some(one) = measured(CLAMP, &all[..1]) else { return };
        let three = measured(CLAMP, &all).unwrap();
        assert_eq!((one.lines, one.covered, three.lines, three.covered), (5, 3, 5, 5));
        assert_eq!(one.mutants, three.mutants);
        assert!(0 < one.killed && one.killed < three.killed && three.killed < three.mutants, "{one:?} {three:?}");
    }

    #[test]
    fn a_reference_that_fails_its_tests_measures_nothing() {
        let Some(row) = measured(CLAMP, &["assert clamp(5, 1, 9) == 6"]) else { return };
        assert_eq!(row, AdequacyRow { mutants: 0, killed: 0, lines: 5, covered: 3 });
        assert_eq!(measured("def clamp(", &["assert clamp()"]).map(|row| row.lines), Some(0));
    }
}
