//! `tracetune verify FILE.jsonl`: the kind `verify` over a file of programs.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use tracetune_cli::exit;
use tracetune_cli::tool::{Output, error};

use super::{interpreter, with_help};
use crate::judge::{Job, Judged, Outcome, Verdict, judge};
use crate::sandbox::{CpuSeconds, Isolation, Limits, Sandbox};

/// Check programs against tests, in the sandbox
///
/// Each line of FILE is a JSON object: `id`, `source` (or `source_base64` for bytes of any kind) and `tests`, a list of
/// Python statements or of objects with `stdin` and `stdout` as text. May be left out: `setup`, code to run before the
/// tests; `prelude`, code to run before the program; `reference`, a correct program. A line of JSON comes back for each:
/// `id`, `verdict` (pass, fail, error, timeout, limit, crash, invalid), `tests` (a word each), `detail` and `judged`.
///
/// Tests are ordinary Python. Comparisons are made outside the process that runs a program, which never sees an expected
/// value; where that can't be done (objects compared by their own `==`, identity, control flow), `judged` is `inside`.
///
/// Examples:
///   tracetune verify programs.jsonl
///   tracetune verify programs.jsonl --workers 4 --cpu-limit-s 10 > verdicts.jsonl
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The programs and their tests, JSON Lines
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// How many programs run at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// CPU time that a program may use for all its tests, in seconds; ten times what the `reference` takes if that is more
    #[arg(long, value_name = "S", default_value_t = Limits::default().cpu_s)]
    cpu_limit_s: CpuSeconds,
    /// Packages that programs may import: a virtual environment, or a folder that `pip install --target` filled
    #[arg(long, value_name = "DIR")]
    packages: Option<String>,
    /// A module imported once per worker, not by each program; may be given several times
    #[arg(long, value_name = "MODULE")]
    warm: Vec<String>,
    /// The walls that must be there: `full`, `require`, `available` or `unsafe`
    #[arg(long, default_value = "available", value_name = "WORD")]
    isolation: Isolation,
}

/// A line of the file.
struct Program {
    id: Value,
    /// `None` if the source is no UTF-8.
    job: Option<Job>,
    tests: Vec<String>,
}

/// Prints a line for each program; the exit code is 0 whatever the verdicts.
pub(crate) fn verify(args: &Args, output: &Output) -> anyhow::Result<u8> {
    let name = args.file.display();
    let text = fs_err::read_to_string(&args.file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let programs: Vec<(usize, Program)> = lines
        .map(|(index, line)| {
            let program =
                program(line).map_err(|wrong| error(format!("{name}:{}: {}", index + 1, wrong.0), wrong.1))?;
            Ok((index + 1, program))
        })
        .collect::<anyhow::Result<_>>()?;
    let workers = args.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let limits = Limits { cpu_s: args.cpu_limit_s, isolation: args.isolation, ..Limits::default() };
    let python = interpreter(args.packages.as_deref(), &args.warm)?;
    let sandbox = Sandbox::start(&python, limits, workers.min(programs.len())).map_err(with_help)?;
    let never = || false;
    let jobs: Vec<Job> = programs.iter().filter_map(|(_, program)| program.job.clone()).collect();
    let verdicts = judge(&sandbox, &jobs, &never, &|_| {}).context("verifying")?;
    let mut verdicts = verdicts.into_iter();
    for (_, program) in &programs {
        let undecodable =
            || Verdict::unreached(Outcome::Invalid, program.tests.len(), Judged::Inside, "it is no UTF-8");
        let verdict = program.job.as_ref().and_then(|_| verdicts.next()).unwrap_or_else(undecodable);
        let words = verdict.tests.iter().map(|test| test.map_or("not run".to_owned(), |outcome| outcome.to_string()));
        output.answer(json!({
            "id": program.id,
            "verdict": verdict.outcome.to_string(),
            "tests": words.collect::<Vec<_>>(),
            "detail": verdict.detail,
            "judged": verdict.judged.to_string(),
        }));
    }
    output.story(format_args!("sandbox: {}", sandbox.layers()));
    Ok(exit::DONE)
}

/// What is wrong with a line, and what to write instead.
type Wrong = (String, &'static str);

fn program(line: &str) -> Result<Program, Wrong> {
    let fields: Map<String, Value> = serde_json::from_str(line).map_err(|wrong| {
        (format!("is no JSON object: {wrong}"), "one object a line: {\"id\": …, \"source\": …, \"tests\": […]}")
    })?;
    const KNOWN: [&str; 7] = ["id", "source", "source_base64", "tests", "setup", "prelude", "reference"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err((
            format!("field `{unknown}` is not known"),
            "a line has `id`, `source` or `source_base64`, `tests`, `setup`, `prelude` and `reference`",
        ));
    }
    let id = fields.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
    let id =
        id.ok_or_else(|| ("field `id` must be a text or a number".to_owned(), "name the program: \"id\": \"a\""))?;
    let text = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err((format!("field `{name}` must be a text"), "put it between quotes")),
    };
    let source = match (text("source")?, text("source_base64")?) {
        (Some(source), None) => Some(source),
        (None, Some(coded)) => {
            let bytes = base64::prelude::BASE64_STANDARD.decode(coded.trim());
            let bytes = bytes.map_err(|wrong| {
                (format!("field `source_base64` is no base64: {wrong}"), "or give the text itself as `source`")
            })?;
            String::from_utf8(bytes).ok()
        }
        (None, None) => return Err(("field `source` is missing".to_owned(), "add the program's text")),
        (Some(_), Some(_)) => {
            return Err(("both `source` and `source_base64` are there".to_owned(), "leave one of them out"));
        }
    };
    let tests: Option<Vec<String>> = fields
        .get("tests")
        .and_then(Value::as_array)
        .and_then(|tests| tests.iter().map(|test| test.as_str().map(str::to_owned)).collect());
    let tests =
        tests.ok_or_else(|| ("field `tests` must be a list of texts".to_owned(), "e.g. [\"assert f(1) == 2\"]"))?;
    let (setup, prelude) = (text("setup")?.unwrap_or_default(), text("prelude")?.unwrap_or_default());
    let reference = text("reference")?;
    let job = source.map(|source| Job { source, prelude, setup, tests: tests.clone(), reference });
    Ok(Program { id, job, tests })
}
