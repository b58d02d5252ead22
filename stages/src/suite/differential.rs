//! Kind `differential`: more tests, by asking the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

use crate::packages;
use crate::sandbox::{Bounds, Call, CpuSeconds, Frame, Limits, Sandbox, SandboxError, Worker};
use crate::verify::check_limits;

record! {
    /// What `differential` reads.
    pub struct AskedRow {
        /// The problem; it addresses the random choices.
        pub problem_id: String,
        /// The program that knows the answers.
        pub reference: String,
        /// The function that is called.
        pub entry_point: String,
        /// Code that runs before the tests.
        pub setup: String,
        /// The tests that are there.
        pub tests: Vec<String>,
    }
    /// What it adds.
    pub struct MoreTestsRow {
        /// The tests that were there, then the new ones.
        pub tests: Vec<String>,
        /// How many are new.
        pub added: i32,
    }
}

/// What may stand under `kind = "differential"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Tests added a problem, as far as so many different ones are found.
    #[schemars(range(min = 1, max = 1000))]
    pub more: usize,
    /// CPU time for finding them, a problem, in seconds.
    pub cpu_limit_s: CpuSeconds,
    /// Memory for it, in bytes.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// Third-party packages that programs may import: a virtual environment, or a folder that `pip install --target`
    /// filled. Names, versions and files of the packages count in the key.
    pub packages: Option<String>,
    /// Modules imported once per worker, not by each program: `["numpy", "pandas"]`.
    pub warm: Vec<String>,
    /// Seed of the inputs; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            more: 16,
            cpu_limit_s: CpuSeconds(20.0),
            memory_bytes: Limits::default().memory_bytes,
            packages: None,
            warm: Vec::new(),
            seed: 0,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        if !(1..=1000).contains(&self.more) {
            let message = "must be between 1 and 1000".to_owned();
            return Err(ParamError { param: "more", message, help: Some("16 is the default".to_owned()) });
        }
        packages::check_warm(&self.warm)?;
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

/// Adds tests whose inputs are variations of the visible calls' arguments, of the same types and kept where those keep
/// to it non-negative, sorted, or as long as another argument says; what is expected is what the reference gives.
///
/// Differential testing with type-aware input mutation, as EvalPlus (Liu et al. 2023, arXiv:2305.01210, section 2.2).
/// Inputs on which the reference raises, takes long, or gives no literal or not the same twice make no test.
pub struct Differential;

impl RowStage for Differential {
    const KIND: &'static str = "differential";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "adds tests: inputs like the visible ones, answers by the reference";
    type Params = Params;
    type In = AskedRow;
    type Out = MoreTestsRow;
    type Session = Sandbox;

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
        items: &[Item<AskedRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<MoreTestsRow>>, StageError> {
        let done = |done: usize| cx.progress(done as u64, items.len() as u64, "");
        let added = sandbox.map(items, &|| cx.cancelled(), &done, |worker, item| ask(worker, params, &item.row))?;
        let none = added.iter().filter(|tests| tests.is_empty()).count();
        if none > 0 {
            cx.note(&format!("no test could be added to {none} of {} problems", items.len()));
        }
        let whole = |(item, added): (&Item<AskedRow>, Vec<String>)| {
            vec![MoreTestsRow {
                added: added.len() as i32,
                tests: item.row.tests.iter().cloned().chain(added).collect(),
            }]
        };
        Ok(items.iter().zip(added).map(whole).collect())
    }
}

/// The new tests of one problem.
fn ask(worker: &mut Worker, params: &Params, row: &AskedRow) -> Result<Vec<String>, SandboxError> {
    let (seed, more) = (params.seed.to_string(), params.more.to_string());
    let known = [&row.reference, &row.setup, &row.entry_point, &seed, &row.problem_id, &more];
    let fields: Vec<&[u8]> = known.into_iter().chain(&row.tests).map(|field| field.as_bytes()).collect();
    let reply = worker.run(Call::new("differential", &fields).bounds(Bounds::frames(params.more + 1)))?;
    let test = |frame: &Frame| match frame.as_slice() {
        [tag, test] if tag == b"test" => Some(String::from_utf8_lossy(test).into_owned()),
        _ => None,
    };
    Ok(reply.frames.iter().filter_map(test).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(reference: &str, tests: &[&str]) -> Option<(Vec<String>, AskedRow)> {
        let sandbox = crate::judge::tests::sandbox()?;
        let row = AskedRow {
            problem_id: "p".to_owned(),
            reference: reference.to_owned(),
            entry_point: "f".to_owned(),
            setup: String::new(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        };
        let ask = |worker: &mut Worker, row: &AskedRow| ask(worker, &Params { seed: 3, ..Params::default() }, row);
        let once = sandbox.map(std::slice::from_ref(&row), &|| false, &|_| {}, ask).unwrap().remove(0);
        let again = sandbox.map(std::slice::from_ref(&row), &|| false, &|_| {}, ask).unwrap().remove(0);
        assert_eq!(once, again);
        Some((once, row))
    }

    #[test]
    fn new_tests_hold_for_the_reference_and_tell_a_wrong_program_that_the_old_ones_pass() {
        let reference = "def f(xs, n):\n    return [x for x in xs if x > n] + [len(xs)]\n";
        let Some((tests, row)) = asked(reference, &["assert f([1, 5, 2], 2) == [5, 3]", "assert f([], 0) == [0]"])
        else {
            return;
        };
        assert_eq!(tests.len(), 16);
        assert!(tests.iter().all(|test| test.starts_with("assert f([") && !row.tests.contains(test)), "{tests:?}");
        let wrong = "def f(xs, n):\n    return [x for x in xs if x > n and x < 6][:1] + [len(xs)]\n";
        let sandbox = crate::judge::tests::sandbox().unwrap();
        let job = |source: &str, tests: &[String]| crate::judge::Job {
            source: source.to_owned(),
            tests: tests.to_vec(),
            ..crate::judge::Job::default()
        };
        let jobs = [job(reference, &tests), job(wrong, &row.tests), job(wrong, &tests)];
        let verdicts = crate::judge::judge(sandbox, &jobs, &|| false, &|_| {}).unwrap();
        let passed: Vec<bool> = verdicts.iter().map(|verdict| verdict.outcome == crate::judge::Outcome::Pass).collect();
        assert_eq!(passed, [true, true, false]);
    }

    #[test]
    fn inputs_keep_to_what_the_visible_ones_keep_to() {
        let reference =
            "def f(xs, n):\n    assert n == len(xs) and xs == sorted(xs) and min(xs) >= 0\n    return sum(xs)\n";
        let Some((tests, _)) = asked(reference, &["assert f([1, 4, 6], 3) == 11", "assert f((2, 3), 2) == 5"]) else {
            return;
        };
        assert_eq!(tests.len(), 16, "{tests:?}");
    }

    #[test]
    fn what_has_no_answer_makes_no_test() {
        let nothing = [
            ("import random\ndef f(x):\n    return random.random()\n", "assert f(1) < 1"),
            ("def f(x):\n    while True: pass\n", "assert f(1) == 1"),
            ("def f(x):\n    return object()\n", "assert f(1)"),
            ("def f(x):\n    raise ValueError\n", "assert f(1)"),
            ("def f(x):\n    return x\n", "assert g()"),
            ("def f(", "assert f(1) == 1"),
        ];
        for (reference, test) in nothing {
            let Some((tests, _)) = asked(reference, &[test]) else { return };
            assert_eq!(tests, Vec::<String>::new(), "{reference}");
        }
    }
}
