//! Kind `verify`: runs each fix against its problem's tests, in the sandbox (`judge`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

use crate::judge::{self, Job, Verdict};
use crate::packages;
use crate::sandbox::{CpuSeconds, Isolation, Limits, Sandbox, ValueBounds};

/// Runs each fix against the tests and says how it went, in one word of a closed set.
///
/// # Errors
/// [`StageError::Environment`] without Python. A fix that hangs, crashes or does not compile is a row with a verdict, and so
/// is one with a test that is no Python (`invalid`).
pub struct Verify;

/// What may stand under `kind = "verify"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The column with the programs to run: `fix`, or `reference` to check the data itself.
    pub column: String,
    /// CPU time that a fix may use for all tests together, in seconds; for each test where tests are input and output.
    pub cpu_limit_s: CpuSeconds,
    /// Where the row has a `reference`: at least this multiple of the CPU time that it takes, e.g. `"10x"`.
    pub cpu_limit: CpuFactor,
    /// Memory that it may use, in bytes, the interpreter's own 30 MB included.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// What it may print, in bytes.
    #[schemars(range(min = 0))]
    pub output_bytes: u64,
    /// What the files may take that a program writes, in bytes; 0: it may write none.
    #[schemars(range(min = 0))]
    pub scratch_bytes: u64,
    /// The largest value that is compared, in bytes of its encoding.
    #[schemars(range(min = 1024, max = ValueBounds::MOST.bytes))]
    pub value_bytes: usize,
    /// The most objects in a value that is compared.
    #[schemars(range(min = 16, max = ValueBounds::MOST.items))]
    pub value_items: usize,
    /// The deepest nesting of a value that is compared.
    #[schemars(range(min = 4, max = ValueBounds::MOST.depth))]
    pub value_depth: usize,
    /// Code that runs before each program, in its names: imports that its author could count on.
    pub prelude: String,
    /// Third-party packages that programs may import: a virtual environment, or a folder that `pip install --target`
    /// filled. Names, versions and files of the packages count in the key.
    pub packages: Option<String>,
    /// Modules imported once per worker, not by each program: `["numpy", "pandas"]`.
    pub warm: Vec<String>,
    /// The walls that must be there: `full`, `require`, `available` or `unsafe`.
    pub isolation: Isolation,
}

/// A multiple of a reference's CPU time, written `"10x"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct CpuFactor(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?x$"))] pub String);

impl CpuFactor {
    /// The number; `None` if it is not written so.
    fn number(&self) -> Option<f64> {
        self.0.strip_suffix('x')?.parse().ok().filter(|factor| (0.0..=1000.0).contains(factor))
    }
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, output_bytes, scratch_bytes, isolation, values, cpu_factor } =
            Limits::default();
        Self {
            column: "fix".to_owned(),
            cpu_limit_s: cpu_s,
            cpu_limit: CpuFactor(format!("{cpu_factor}x")),
            memory_bytes,
            output_bytes,
            scratch_bytes,
            value_bytes: values.bytes,
            value_items: values.items,
            value_depth: values.depth,
            prelude: String::new(),
            packages: None,
            warm: Vec::new(),
            isolation,
        }
    }
}

impl Params {
    fn limits(&self) -> Limits {
        let values = ValueBounds { bytes: self.value_bytes, items: self.value_items, depth: self.value_depth };
        Limits {
            cpu_s: self.cpu_limit_s,
            memory_bytes: self.memory_bytes,
            output_bytes: self.output_bytes,
            scratch_bytes: self.scratch_bytes,
            isolation: self.isolation,
            values,
            cpu_factor: self.cpu_limit.number().unwrap_or_default(),
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        packages::check_warm(&self.warm)?;
        check_limits(self.cpu_limit_s, self.memory_bytes)?;
        if !["fix", "reference"].contains(&self.column.as_str()) {
            let message = format!("`{}` is no column of programs", self.column);
            return wrong("column", message, "write `fix` or `reference`");
        }
        if self.cpu_limit.number().is_none() {
            return wrong(
                "cpu_limit",
                format!("`{}` is no multiple", self.cpu_limit.0),
                "write `\"10x\"`; `\"0x\"` turns it off",
            );
        }
        let most = ValueBounds::MOST;
        for (param, value, least, most) in [
            ("value_bytes", self.value_bytes, 1024, most.bytes),
            ("value_items", self.value_items, 16, most.items),
            ("value_depth", self.value_depth, 4, most.depth),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(param, format!("must be between {least} and {most}"), "leave it out for the default");
            }
        }
        Ok(())
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
        pub fix: Option<String>,
        /// The tests.
        pub tests: Vec<String>,
        /// Code that runs before the tests.
        pub setup: String,
        /// A correct program: it tells which comparisons can be made outside, and how long the tests take.
        pub reference: Option<String>,
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
        /// `outside` if all comparisons are made outside the program's process, where it can forge none; `inside` if not.
        pub judged: String,
    }
}

impl RowStage for Verify {
    const KIND: &'static str = "verify";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "runs each fix against the tests, in the sandbox";
    type Params = Params;
    type In = FixRow;
    type Out = VerdictRow;
    type Session = Sandbox;

    fn optional(params: &Params) -> Vec<&'static str> {
        ["fix", "reference"].into_iter().filter(|column| *column != params.column).collect()
    }

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
        params: &Params,
        items: &[Item<FixRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<VerdictRow>>, StageError> {
        let job = |row: &FixRow| {
            let source = if params.column == "reference" { &row.reference } else { &row.fix };
            let missing = || StageError::input(format!("there is no column `{}`, or it has a null", params.column));
            Ok(Job {
                source: source.clone().ok_or_else(missing)?,
                prelude: params.prelude.clone(),
                setup: row.setup.clone(),
                tests: row.tests.clone(),
                reference: row.reference.clone(),
            })
        };
        let jobs = items.iter().map(|item| job(&item.row)).collect::<Result<Vec<Job>, StageError>>()?;
        let total = items.len() as u64;
        let verdicts = judge::judge(sandbox, &jobs, &|| cx.cancelled(), &|done| cx.progress(done as u64, total, ""))?;
        Ok(verdicts.into_iter().map(|verdict| vec![verdict.into()]).collect())
    }
}

impl From<Verdict> for VerdictRow {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict: verdict.outcome.to_string(),
            passed: verdict.passed() as i32,
            total: verdict.tests.len() as i32,
            results: verdict.results(),
            detail: verdict.detail,
            judged: verdict.judged.to_string(),
        }
    }
}
