//! Kind `trace`: runs the first failing test of each program and writes what it saw into the program.
//!
//! The tracer (`tracer.py`) runs in the sandbox under a budget of statements, not of time, so that an endless program
//! gives a trace. Values are rendered without addresses and without the candidate's code (`render.py`).

mod annotate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Environment, Inputs, Item, ParamError, RowStage, Setup, StageError};

pub use annotate::{Step, Visits, annotate};

use crate::python::Python;
use crate::sandbox::{Ending, Limits, Reply, Sandbox, SandboxError, Worker};
use crate::verify::{Job, Outcome, Tests, check, check_limits};

/// Traces each program on a failing test, in NExT's inline form.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), section 3. With `program = "reference"` it traces the correct program on
/// the first test.
///
/// # Errors
/// [`StageError::Input`] if a test does not parse; [`StageError::Environment`] without Python. A program that hangs,
/// crashes or does not compile is a row with a `trace_status`.
pub struct Trace;

/// Which column is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// `buggy`, on its first failing test.
    #[default]
    Buggy,
    /// `reference`, on its first test.
    Reference,
}

/// What may stand under `kind = "trace"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which column is traced: `buggy` on its first failing test, or `reference` on its first test.
    pub program: Program,
    /// Statements that are traced before the trace ends.
    #[schemars(range(min = 1))]
    pub max_steps: u32,
    /// Characters of one value.
    #[schemars(range(min = 8))]
    pub value_chars: u32,
    /// Items shown of one list, dict or set.
    #[schemars(range(min = 1))]
    pub value_items: u32,
    /// Visits of a line that are kept from the start.
    pub first: u32,
    /// Visits of a line that are kept at the end.
    pub last: u32,
    /// Characters of the program with its trace; the middle of loops is left out first.
    #[schemars(range(min = 1))]
    pub budget_chars: u32,
    /// CPU time of one run, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub cpu_limit_s: u32,
    /// Memory of one run, in bytes.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, .. } = Limits::default();
        Self {
            program: Program::Buggy,
            max_steps: 1000,
            value_chars: 80,
            value_items: 20,
            first: 2,
            last: 1,
            budget_chars: 4000,
            cpu_limit_s: cpu_s,
            memory_bytes,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str| Err(ParamError { param, message: message.to_owned(), help: None });
        if self.max_steps == 0 {
            return wrong("max_steps", "must be at least 1");
        }
        if self.value_chars < 8 {
            return wrong("value_chars", "must be at least 8");
        }
        if self.value_items == 0 {
            return wrong("value_items", "must be at least 1");
        }
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

record! {
    /// What `trace` reads.
    pub struct ProgramRow {
        /// The correct program.
        pub reference: String,
        /// The wrong program; may be missing where `program = "reference"`.
        pub buggy: Option<String>,
        /// The tests.
        pub tests: Vec<String>,
        /// Code that runs before the tests.
        pub setup: String,
    }
    /// What `trace` adds.
    pub struct TraceRow {
        /// The traced test; empty when there was none to trace.
        pub test: String,
        /// The program with its trace.
        pub trace: String,
        /// What the traced call returned, or the exception, e.g. `TypeError('...')`; empty when unknown.
        pub got: String,
        /// ok, truncated, timeout, crash, invalid or no_failing_test.
        pub trace_status: String,
        /// State changes seen.
        pub steps: i32,
    }
}

impl RowStage for Trace {
    const KIND: &'static str = "trace";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "runs each program on a failing test and writes the inline trace";
    type Params = Params;
    type In = ProgramRow;
    type Out = TraceRow;
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
        items: &[Item<ProgramRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<TraceRow>>, StageError> {
        let rows: Vec<&ProgramRow> = items.iter().map(|item| &item.row).collect();
        let total = items.len() as u64;
        let traced = trace(sandbox, params, &rows, &|| cx.cancelled(), &|done| cx.progress(done as u64, total, ""))?;
        Ok(traced.into_iter().map(|row| vec![row]).collect())
    }
}

/// Traces every row; results in the rows' order.
///
/// # Errors
/// As [`Trace`].
pub fn trace(
    sandbox: &Sandbox,
    params: &Params,
    rows: &[&ProgramRow],
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<TraceRow>, StageError> {
    if params.program == Program::Buggy && rows.iter().any(|row| row.buggy.is_none()) {
        return Err(StageError::input("column `buggy` has a null"));
    }
    let tests = Tests::prepare(sandbox, rows.iter().flat_map(|row| &row.tests), cancelled)?;
    let mut traced = sandbox.map(rows, cancelled, on_done, |worker, row| trace_row(worker, params, row, &tests))?;
    // As in `verify`: what met the wall limit is tried once more alone.
    for (row, traced) in rows.iter().zip(&mut traced).filter(|(_, traced)| traced.doubtful) {
        let again = sandbox.map(&[row], cancelled, &|_| {}, |worker, row| trace_row(worker, params, row, &tests))?;
        *traced = again.into_iter().next().unwrap_or_else(|| traced.clone());
    }
    Ok(traced.into_iter().map(|traced| traced.row).collect())
}

/// A row, and whether the machine may be to blame for it.
#[derive(Clone)]
struct Traced {
    row: TraceRow,
    doubtful: bool,
}

impl From<TraceRow> for Traced {
    fn from(row: TraceRow) -> Self {
        Self { row, doubtful: false }
    }
}

/// Where the traced run starts.
enum Target {
    /// A test, by its place.
    Test(usize),
    /// The program itself: it fails while it loads.
    Load,
}

fn trace_row(worker: &mut Worker, params: &Params, row: &ProgramRow, tests: &Tests) -> Result<Traced, SandboxError> {
    let source = match params.program {
        Program::Buggy => row.buggy.as_deref().unwrap_or_default(),
        Program::Reference => &row.reference,
    };
    // The interpreter reads these line ends alike; a trace counts lines by `\n` alone.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let plain = |test: &str, status: &str| TraceRow {
        test: test.to_owned(),
        trace: source.clone(),
        got: String::new(),
        trace_status: status.to_owned(),
        steps: 0,
    };
    let Some(first_test) = row.tests.first() else { return Ok(plain("", "no_failing_test").into()) };
    let mut doubtful = false;
    let target = match params.program {
        Program::Reference => Target::Test(0),
        Program::Buggy => {
            let job = Job { source: source.clone(), setup: row.setup.clone(), tests: row.tests.clone() };
            let verdict = check(worker, &job, tests)?;
            doubtful = verdict.doubtful;
            match (verdict.outcome, verdict.first_failing) {
                (Outcome::Pass, _) => return Ok(plain("", "no_failing_test").into()),
                (Outcome::Invalid, _) => return Ok(plain(first_test, "invalid").into()),
                (_, Some(test)) => Target::Test(test),
                (_, None) => Target::Load,
            }
        }
    };
    let (name, mode, code) = match target {
        Target::Load => (first_test, &b"load"[..], ""),
        Target::Test(test) => {
            let name = &row.tests[test];
            let Some(test) = tests.get(name) else { return Ok(plain(name, "no_failing_test").into()) };
            (name, test.mode.as_bytes(), test.code.as_str())
        }
    };
    let numbers = [params.max_steps, params.value_chars, params.value_items].map(|number| number.to_string());
    let mut fields = vec![source.as_bytes(), row.setup.as_bytes(), mode, code.as_bytes()];
    fields.extend(numbers.iter().map(|number| number.as_bytes()));
    let reply = worker.call("trace", &fields)?;
    doubtful |= reply.ending == Ending::WallTime;
    Ok(Traced { row: read(&reply, params, &source, name), doubtful })
}

/// A row from what the tracer sent.
fn read(reply: &Reply, params: &Params, source: &str, test: &str) -> TraceRow {
    let mut steps = Vec::new();
    let mut got = String::new();
    let mut status = match reply.ending {
        Ending::Done => "ok",
        Ending::Output => "truncated",
        Ending::WallTime | Ending::Signal(9 | 24) => "timeout",
        Ending::Exit(_) | Ending::Signal(_) | Ending::Malformed => "crash",
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for frame in &reply.frames {
        match frame.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [b"step", line, changes] => {
                let line = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()).unwrap_or(0);
                steps.push(Step { line, text: text(changes) });
            }
            [b"got", value] => got = text(value),
            [b"truncated"] => status = "truncated",
            [b"exit"] => status = "crash",
            [b"invalid", _] => status = "invalid",
            _ => {}
        }
    }
    let visits = Visits { first: params.first as usize, last: params.last as usize };
    let (trace, cut) = annotate(source, &steps, visits, params.budget_chars as usize);
    let status = if cut && status == "ok" { "truncated" } else { status };
    TraceRow { test: test.to_owned(), trace, got, trace_status: status.to_owned(), steps: steps.len() as i32 }
}

#[cfg(test)]
mod tests;
