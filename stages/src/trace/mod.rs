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

use crate::judge::{Job, Outcome, Suites, Test, Unit, check};
use crate::packages;
use crate::sandbox::value::Value;
use crate::sandbox::{Call, Doubt, Ending, Sandbox, SandboxError, Worker};

/// Traces each program on a failing test, in NExT's inline form.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), section 3. With `program = "reference"` it traces the correct program on
/// the first test.
///
/// # Errors
/// [`StageError::Input`] if `budget_tokens` stands without a `model`;
/// [`StageError::Environment`] without Python. A program that hangs, crashes or does not compile is a row with a
/// `trace_status`.
pub struct Trace;

record! {
    /// What `trace` reads.
    pub struct ProgramRow {
        /// The correct program.
        pub reference: String,
        /// The wrong program; a table may lack it where `program = "reference"`.
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
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "runs each program on a failing test and writes the inline trace";
    type Params = Params;
    type In = ProgramRow;
    type Out = TraceRow;
    type Session = Session;

    fn ports() -> Vec<Port> {
        let about = "its tokenizer counts `budget_tokens`";
        vec![Port { name: "model", port_type: PortType::Model, optional: true, about }]
    }

    fn optional(params: &Params) -> Vec<&'static str> {
        if params.program == Program::Reference { vec!["buggy"] } else { Vec::new() }
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        packages::environment(params.packages.as_deref(), setup)
    }

    fn open(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Session, StageError> {
        let tokenizer = match (params.budget_tokens, inputs.directory("model")) {
            (None, _) => None,
            (Some(_), Some(folder)) => Some(tokenizer(folder)?),
            (Some(_), None) => {
                let message = "`budget_tokens` needs the `model` whose tokens are counted: name a model stage, or use \
                               `budget_chars`";
                return Err(StageError::input(message));
            }
        };
        let python = packages::interpreter(params.packages.as_deref(), &params.warm, &cx.root)?;
        Ok(Session { sandbox: Sandbox::open(&python, params.limits(), cx)?, tokenizer })
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
    let jobs: Vec<Job> = rows.iter().map(|row| job(row, params, String::new())).collect();
    let suites = Suites::prepare(sandbox, &jobs, cancelled)?;
    let work = |worker: &mut Worker, row: &&ProgramRow| trace_row(worker, session, params, row, &suites);
    let traced = sandbox.map_twice(rows, cancelled, on_done, work, |traced| traced.doubt)?;
    Ok(traced.into_iter().map(|traced| traced.row).collect())
}

/// A row, and why the machine may be to blame for it.
struct Traced {
    row: TraceRow,
    doubt: Option<Doubt>,
}

impl From<TraceRow> for Traced {
    fn from(row: TraceRow) -> Self {
        Self { row, doubt: None }
    }
}

fn job(row: &ProgramRow, params: &Params, source: String) -> Job {
    Job {
        source,
        prelude: params.prelude.clone(),
        setup: row.setup.clone(),
        tests: row.tests.clone(),
        reference: Some(row.reference.clone()),
    }
}

fn trace_row(
    worker: &mut Worker,
    session: &Session,
    params: &Params,
    row: &ProgramRow,
    suites: &Suites,
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
    let job = job(row, params, source.clone());
    let suite = suites.get(&job);
    let Some(Ok(suite)) = suite.as_deref() else { return Ok(plain(first_test, "invalid").into()) };
    let mut doubt = None;
    let (failing, path) = match params.program {
        Program::Reference => (Some(0), Default::default()),
        Program::Buggy => {
            let verdict = check(worker, &job, suites)?;
            doubt = verdict.doubt;
            match verdict.outcome {
                Outcome::Pass => return Ok(plain("", "no_failing_test").into()),
                Outcome::Invalid => return Ok(plain(first_test, "invalid").into()),
                _ => (verdict.first_failing, verdict.path),
            }
        }
    };
    // The very code that was judged, up to the comparison that is false: a verdict and its trace can't differ.
    let target = match failing.map(|test| (test, &suite.tests[test])) {
        None => Target::Load,
        Some((_, Test::Script(script))) => Target::Script(&script.stdin),
        Some((test, Test::Python(_))) => {
            let before = suite.tests[..test].iter().filter(|test| matches!(test, Test::Python(_))).count();
            let stop = |place: usize| path.stops.get(place).copied().flatten();
            let unit = |(place, unit): (usize, &Unit)| TracedUnit {
                mode: unit.mode().to_vec(),
                code: unit.code.clone(),
                stop: stop(place),
            };
            let units = suite.units().take(before + 2).enumerate().map(unit).collect();
            Target::Units { units, begin: path.begin, end: path.reports }
        }
    };
    let (mut run, mut in_doubt) = trace_target(worker, params, &source, &target)?;
    if let Target::Units { units, begin: 1.., end } = target
        && run.steps.is_empty()
        && run.status == "ok"
    {
        // Nothing of the program ran since the comparison before: it is the whole test that shows why.
        (run, in_doubt) = trace_target(worker, params, &source, &Target::Units { units, begin: 0, end })?;
    }
    doubt = doubt.or(in_doubt.then_some(Doubt::Waited));
    let (trace, cut) = params.write(&source, &run, session.tokenizer.as_ref());
    let status = if cut && run.status == "ok" { "truncated" } else { run.status };
    let steps = run.changes().count() as i32;
    let test = failing.map_or(first_test, |test| &row.tests[test]).clone();
    Ok(Traced { row: TraceRow { test, trace, got: run.got, trace_status: status.to_owned(), steps }, doubt })
}

/// What is traced of a run.
enum Target<'a> {
    /// The program's loading.
    Load,
    /// A call, as a user writes it: how it is evaluated (`value` or `exec`) and its text.
    Call(&'static str, &'a str),
    /// The program as a script with this standard input.
    Script(&'a str),
    /// The last of these units: after `begin` of its reports, up to the one numbered `end`.
    Units { units: Vec<TracedUnit>, begin: usize, end: Option<usize> },
}

/// The setup or a test on the way to what is traced (`judge::Unit`).
struct TracedUnit {
    mode: Vec<u8>,
    code: Vec<u8>,
    stop: Option<usize>,
}

/// Traces one call of a program, by how it is evaluated (`value` or `exec`) and its text; without one the
/// program's loading. Also says whether the wall limit ended it.
///
/// # Errors
/// The sandbox failed.
pub(crate) fn trace_call(
    worker: &mut Worker,
    params: &Params,
    source: &str,
    call: Option<(&'static str, &str)>,
) -> Result<(Run, bool), SandboxError> {
    let target = call.map_or(Target::Load, |(mode, text)| Target::Call(mode, text));
    trace_target(worker, params, source, &target)
}

fn trace_target(
    worker: &mut Worker,
    params: &Params,
    source: &str,
    target: &Target,
) -> Result<(Run, bool), SandboxError> {
    let numbers = [params.max_steps, params.value_chars, params.value_items].map(|number| number.to_string());
    let flags = [params.form == Form::Scratchpad, params.settrace].map(|flag| if flag { "1" } else { "0" });
    let number = |number: Option<usize>| number.map_or("-1".to_owned(), |number| number.to_string());
    let mut fields: Vec<Vec<u8>> = [source, &params.prelude].map(|text| text.as_bytes().to_vec()).to_vec();
    fields.extend(numbers.iter().map(String::as_str).chain(flags).map(|text| text.as_bytes().to_vec()));
    let (begin, end) = match target {
        Target::Units { begin, end, .. } => (*begin, *end),
        _ => (0, None),
    };
    fields.extend([begin.to_string(), number(end)].map(String::into_bytes));
    let text = |mode: String, text: &str| [mode.into_bytes(), text.as_bytes().to_vec(), b"-1".to_vec()];
    match target {
        Target::Load => {}
        Target::Call(mode, call) => fields.extend(text(format!("text {mode}"), call)),
        Target::Script(stdin) => fields.extend(text("script".to_owned(), stdin)),
        Target::Units { units, .. } => {
            fields.extend(
                units.iter().flat_map(|unit| [unit.mode.clone(), unit.code.clone(), number(unit.stop).into_bytes()]),
            );
        }
    }
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let reply = worker.run(Call::new("trace", &fields).with_memory().with_output())?;
    let mut run = Run::read(&reply);
    if matches!(target, Target::Script(_)) && run.got.is_empty() {
        run.got = Value::Str(reply.output.clone()).show(params.value_chars.max(200) as usize);
    }
    Ok((run, reply.ending == Ending::WallTime))
}

#[cfg(test)]
mod tests;
