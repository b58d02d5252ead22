//! Problems of programming contests: tests are a program's standard input and output, or arguments and results of a
//! function (`contest.py` makes asserts of those). What LiveCodeBench, APPS and CodeContests have in common.
//!
//! A test on standard input and output is a JSON object on one line, `{"stdin": "3\n1 2 3\n", "stdout": "6\n"}`.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;
use tracetune_engine::stage::{Context, StageError};

use super::layout::{Source, end_with_newline};
use super::{Import, Params, ProblemRow};
use crate::dataset::evalplus::CPU_LIMIT_S;
use crate::python::Python;
use crate::sandbox::{Ending, Limits, Reply, Sandbox};

/// The longest test that is kept, in bytes.
const MOST_BYTES: usize = 4 << 20;
/// Solutions that are tried for a reference.
const MOST_SOLUTIONS: usize = 20;

/// A problem whose tests are not yet written.
#[derive(Default)]
pub(super) struct Contest {
    /// The problem, without `reference` and `tests`.
    pub(super) problem: ProblemRow,
    /// Standard input and output of each test.
    pub(super) streams: Vec<(String, String)>,
    /// Tests that call a function.
    pub(super) calls: Option<Calls>,
    /// Programs said to be correct, the first of which that is Python 3 becomes the reference; none where the source
    /// never has any.
    pub(super) solutions: Option<Vec<String>>,
}

/// Tests that call a function.
pub(super) struct Calls {
    /// The function's name.
    pub(super) function: String,
    /// The code that the problem starts from, which tells whether the function belongs to a class `Solution`.
    pub(super) starter: String,
    /// `{"inputs": [[argument, …], …], "outputs": […]}` of APPS, or `[{"input": "lines of JSON", "output": "JSON"}, …]`
    /// of LiveCodeBench.
    pub(super) cases: String,
    /// The field that they stand in, for errors.
    pub(super) field: &'static str,
}

/// Adds the problem that `read` makes of each row; `Ok(Err(reason))` leaves it out, by its name.
pub(super) fn problems(
    import: &mut Import,
    params: &Params,
    sources: &[Source],
    cx: &Context,
    read: impl Fn(&Source) -> Result<Result<Contest, (String, String)>, StageError>,
) -> Result<(), StageError> {
    let mut contests = Vec::new();
    for source in sources {
        match import.sound(read(source))? {
            Some(Ok(contest)) => contests.push((source, contest)),
            Some(Err((problem, reason))) => import.skip(&problem, "problem", &reason),
            None => {}
        }
    }
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), cx.threads)?;
    let progress = |done: usize| cx.progress(done as u64, contests.len() as u64, "");
    let replies = sandbox.map(&contests, &|| cx.cancelled(), &progress, |worker, (_, contest)| {
        let calls = contest.calls.as_ref();
        let solutions = contest.solutions.iter().flatten().take(MOST_SOLUTIONS).map(String::as_str);
        let solutions = Value::from_iter(solutions);
        let [function, starter, cases] =
            calls.map_or([""; 3], |calls| [&calls.function, &calls.starter, &calls.cases].map(String::as_str));
        let solutions = solutions.to_string();
        let fields = [function, starter, &solutions, cases].map(str::as_bytes);
        worker.call_for("contest", &fields, CPU_LIMIT_S)
    })?;
    for ((source, contest), reply) in contests.into_iter().zip(replies) {
        let problem = written(import, params, source, contest, &reply);
        let problem = import.sound(problem)?;
        import.problems.extend(problem);
    }
    Ok(())
}

/// A problem with its reference and its tests.
fn written(
    import: &mut Import,
    params: &Params,
    source: &Source,
    contest: Contest,
    reply: &Reply,
) -> Result<ProblemRow, StageError> {
    let Contest { mut problem, streams, calls, solutions } = contest;
    let mut seen = HashSet::new();
    for (stdin, stdout) in streams {
        let test = stream_test(&stdin, &stdout, params.tolerance);
        if test.len() > MOST_BYTES {
            import.skip(&problem.problem_id, "test", &format!("takes more than {} MiB", MOST_BYTES >> 20));
        } else if seen.insert(test.clone()) {
            problem.tests.push(test);
        }
    }
    let field = calls.map_or("solutions", |calls| calls.field);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for frame in &reply.frames {
        match frame.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
            [b"reference", reference] => problem.reference = end_with_newline(text(reference)),
            [b"test", test] => problem.tests.push(text(test)),
            [b"skipped", reason] => import.skip(&problem.problem_id, "test", &text(reason)),
            [b"bad", message] => return Err(source.wrong(field, &text(message))),
            _ => {}
        }
    }
    if reply.ending != Ending::Done {
        return Err(source.wrong(field, &format!("can't be turned into tests: {:?}", reply.ending)));
    }
    if problem.reference.is_empty() && solutions.is_some() {
        import.skip(&problem.problem_id, "reference", "no solution is Python 3");
    }
    if problem.tests.is_empty() {
        return Err(source.wrong(field, "gives no test at all"));
    }
    Ok(problem)
}

/// The test that a program prints `stdout` when it reads `stdin`.
pub(super) fn stream_test(stdin: &str, stdout: &str, tolerance: Option<f64>) -> String {
    let [stdin, stdout] = [stdin, stdout].map(|text| Value::from(text.replace("\r\n", "\n")).to_string());
    let tolerance = tolerance.map_or(String::new(), |tolerance| format!(", \"tolerance\": {tolerance:e}"));
    format!("{{\"stdin\": {stdin}, \"stdout\": {stdout}{tolerance}}}")
}

/// The split that a file is named after, e.g. `train.jsonl` or `valid-00000-of-00001.parquet`; else `test`.
pub(super) fn split_of_file(path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let splits = [("train", "train"), ("valid", "dev"), ("dev", "dev")];
    splits.iter().find(|(start, _)| name.starts_with(start)).map_or("test", |(_, split)| split)
}
