//! Kind `trace`: runs the first failing test of each program and writes what it saw into the program.
//!
//! The tracer (`tracer.py`, with what it knows of a program in `syntax.py` and the interpreters' events in `hooks.py`)
//! runs in the sandbox under a budget of statements, not of time, so that an endless program gives a trace. The steps
//! are the same on CPython 3.10 to 3.13. Values are rendered without addresses and without the candidate's code
//! (`render.py`); they are text, taken at the moment, so that changes in place are seen.
//!
//! Every kind of change has the one form `name=value;`: also `__return__`, `__yield__`, `__exception__` (once, where it
//! was raised, be it caught or not) and `__out__` for what a statement printed; `x deleted;` alone differs. Only steps
//! that change something are numbered, as in the paper. Objects that have no text of their own are `<TypeName>` without
//! a number: to number them the tracer would have to keep them alive, and the program could tell.
//!
//! A trace that is not whole ends with a note, e.g. `# ... stopped after 1000 statements`. Calls more than 200 frames
//! deep are not shown: they have a budget of 100 calls and lines per statement of `max_steps`, and a note with their
//! number. Threads other than the main one are not traced.

mod annotate;
mod forms;
mod params;
mod run;

use tracetune_engine::record;
use tracetune_engine::stage::{Context, Environment, Inputs, Item, Port, PortType, RowStage, Setup, StageError};
use tracetune_kernels::model::Tokenizer;

pub use annotate::{Visits, annotate, elided_until};
pub(crate) use forms::records;
pub use forms::{json_lines, scratchpad};
pub use params::{Form, Params, Program};
pub use run::{Block, Run, Step};

use crate::python::Python;
use crate::sandbox::{Ending, Limits, Sandbox, SandboxError, Worker};
use crate::verify::{Job, Outcome, Tests, check};

/// Traces each program on a failing test, in NExT's inline form.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), section 3. With `program = "reference"` it traces the correct program on
/// the first test.
///
/// # Errors
/// [`StageError::Input`] if a test does not parse, or `budget_tokens` stands without a `model`;
/// [`StageError::Environment`] without Python. A program that hangs, crashes or does not compile is a row with a
/// `trace_status`.
pub struct Trace;

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
        /// The program with its trace; over budget without the lines that `# ... lines 12-80: …` stands for.
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
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "runs each program on a failing test and writes the inline trace";
    type Params = Params;
    type In = ProgramRow;
    type Out = TraceRow;
    type Session = Session;

    fn ports() -> Vec<Port> {
        let about = "its tokenizer counts `budget_tokens`";
        vec![Port { name: "model", port_type: PortType::Model, optional: true, about }]
    }

    fn environment(_: &Params, _: &Setup) -> Result<Environment, StageError> {
        Ok(Python::find()?.environment())
    }

    fn open(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Session, StageError> {
        let limits = Limits { cpu_s: params.cpu_limit_s, memory_bytes: params.memory_bytes, ..Limits::default() };
        let tokenizer = match (params.budget_tokens, inputs.directory("model")) {
            (None, _) => None,
            (Some(_), Some(folder)) => Some(tokenizer(folder)?),
            (Some(_), None) => {
                let message = "`budget_tokens` needs the `model` whose tokens are counted: name a model stage, or use \
                               `budget_chars`";
                return Err(StageError::input(message));
            }
        };
        Ok(Session { sandbox: Sandbox::start(&Python::find()?, limits, cx.threads)?, tokenizer })
    }

    fn rows(
        session: &mut Session,
        params: &Params,
        items: &[Item<ProgramRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<TraceRow>>, StageError> {
        let rows: Vec<&ProgramRow> = items.iter().map(|item| &item.row).collect();
        let total = items.len() as u64;
        let traced = trace(session, params, &rows, &|| cx.cancelled(), &|done| cx.progress(done as u64, total, ""))?;
        Ok(traced.into_iter().map(|row| vec![row]).collect())
    }
}

/// What traces many rows.
pub struct Session {
    /// Where programs run.
    pub sandbox: Sandbox,
    /// Counts `budget_tokens`.
    pub tokenizer: Option<Tokenizer>,
}

/// The tokenizer of a model's directory.
///
/// # Errors
/// [`StageError::Input`] if it has none that can be read.
pub fn tokenizer(folder: &std::path::Path) -> Result<Tokenizer, StageError> {
    let bytes = fs_err::read(folder.join("tokenizer.json"))?;
    Tokenizer::from_bytes(&bytes, None).map_err(|error| StageError::input(error.to_string()))
}

/// Traces every row; results in the rows' order.
///
/// # Errors
/// As [`Trace`].
pub fn trace(
    session: &Session,
    params: &Params,
    rows: &[&ProgramRow],
    cancelled: &(dyn Fn() -> bool + Sync),
    on_done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<TraceRow>, StageError> {
    if params.program == Program::Buggy && rows.iter().any(|row| row.buggy.is_none()) {
        return Err(StageError::input("column `buggy` has a null"));
    }
    let sandbox = &session.sandbox;
    let tests = Tests::prepare(sandbox, rows.iter().flat_map(|row| &row.tests), cancelled)?;
    let mut traced =
        sandbox.map(rows, cancelled, on_done, |worker, row| trace_row(worker, session, params, row, &tests))?;
    // As in `verify`: what met the wall limit is tried once more alone.
    for (row, traced) in rows.iter().zip(&mut traced).filter(|(_, traced)| traced.doubtful) {
        let again =
            sandbox.map(&[row], cancelled, &|_| {}, |worker, row| trace_row(worker, session, params, row, &tests))?;
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

fn trace_row(
    worker: &mut Worker,
    session: &Session,
    params: &Params,
    row: &ProgramRow,
    tests: &Tests,
) -> Result<Traced, SandboxError> {
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
    let (name, call) = match target {
        Target::Load => (first_test, None),
        Target::Test(test) => {
            let name = &row.tests[test];
            let Some(test) = tests.get(name) else { return Ok(plain(name, "no_failing_test").into()) };
            (name, Some((test.mode.as_bytes(), test.code.as_str())))
        }
    };
    let (run, in_doubt) = trace_call(worker, params, &source, &row.setup, call)?;
    doubtful |= in_doubt;
    let (trace, cut) = params.write(&source, &run, session.tokenizer.as_ref());
    let status = if cut && run.status == "ok" { "truncated" } else { run.status };
    let steps = run.changes().count() as i32;
    let row = TraceRow { test: name.clone(), trace, got: run.got, trace_status: status.to_owned(), steps };
    Ok(Traced { row, doubtful })
}

/// Traces one call of a program, by how it is evaluated (`value`, `truth` or `exec`) and its code; without one the
/// program itself, while it loads. And whether the machine may be to blame for how it ended.
pub(crate) fn trace_call(
    worker: &mut Worker,
    params: &Params,
    source: &str,
    setup: &str,
    call: Option<(&[u8], &str)>,
) -> Result<(Run, bool), SandboxError> {
    let (mode, code) = call.unwrap_or((b"load", ""));
    let numbers = [params.max_steps, params.value_chars, params.value_items].map(|number| number.to_string());
    let flags = [params.form == Form::Scratchpad, params.settrace].map(|flag| if flag { &b"1"[..] } else { b"0" });
    let mut fields = vec![source.as_bytes(), setup.as_bytes(), mode, code.as_bytes()];
    fields.extend(numbers.iter().map(String::as_bytes).chain(flags));
    let reply = worker.call_with_memory("trace", &fields)?;
    Ok((Run::read(&reply), reply.ending == Ending::WallTime))
}

#[cfg(test)]
mod tests;
