//! Tests that come as a module of Python, with classes of unittest or functions of pytest; the sandbox takes it apart
//! (`test_module.py`). ClassEval has them, and files of the layout `fields` may.

use tracetune_engine::stage::{Context, StageError};

use super::layout::{Source, end_with_newline};
use super::{Import, ProblemRow};
use crate::python::Python;
use crate::sandbox::{Limits, Reply, Sandbox};

/// A problem whose tests are a module still.
pub(super) struct Tested {
    /// The problem, without `tests`. Its setup stands before the module's.
    pub(super) problem: ProblemRow,
    /// The module; empty if the problem has its tests already.
    pub(super) module: String,
    /// The field that it stands in.
    pub(super) field: String,
    /// The test classes that count; all of them if there is none.
    pub(super) classes: Vec<String>,
}

/// Reads a row of ClassEval (Du et al. 2023, arXiv:2308.01861).
pub(super) fn class_eval(source: &Source) -> Result<Tested, StageError> {
    let imports = source.texts("import_statement")?;
    let solution = source.text("solution_code")?;
    let lacking: Vec<&str> = imports.iter().map(|line| line.trim()).filter(|line| !solution.contains(line)).collect();
    let before = if lacking.is_empty() { String::new() } else { format!("{}\n\n", lacking.join("\n")) };
    let skeleton = source.text("skeleton")?;
    let name = source.optional("class_name")?;
    let named = |line: &str| {
        let rest = line.strip_prefix("class ")?;
        Some(rest.split(['(', ':', ' ']).next().unwrap_or_default().to_owned())
    };
    let classes: Vec<String> = source.texts("test_classes")?.iter().map(|name| name.trim().to_owned()).collect();
    let problem = ProblemRow {
        problem_id: source.text("task_id")?,
        split: "test".to_owned(),
        entry_point: if name.is_empty() { skeleton.lines().find_map(named).unwrap_or_default() } else { name },
        instruction: skeleton,
        reference: end_with_newline(format!("{before}{solution}")),
        // Tests use what the program imports.
        setup: imports.join("\n"),
        ..ProblemRow::default()
    };
    Ok(Tested { problem, module: source.text("test")?, field: "test".to_owned(), classes })
}

/// Adds each problem with the tests of its module.
pub(super) fn problems(import: &mut Import, tested: Vec<(&Source, Tested)>, cx: &Context) -> Result<(), StageError> {
    if tested.iter().all(|(_, tested)| tested.module.is_empty()) {
        import.problems.extend(tested.into_iter().map(|(_, tested)| tested.problem));
        return Ok(());
    }
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), cx.threads)?;
    let replies = sandbox.map(&tested, &|| cx.cancelled(), &|_| {}, |worker, (_, tested)| {
        let classes = tested.classes.join(" ");
        let fields = [&tested.module, &tested.problem.reference, &classes].map(|text| text.as_bytes());
        if tested.module.is_empty() { Ok(None) } else { worker.call("test_module", &fields).map(Some) }
    })?;
    for ((source, tested), reply) in tested.into_iter().zip(replies) {
        let problem = match reply {
            None => Ok(tested.problem),
            Some(reply) => with_tests(import, source, tested, &reply),
        };
        let problem = import.sound(problem)?;
        import.problems.extend(problem);
    }
    Ok(())
}

fn with_tests(import: &mut Import, source: &Source, tested: Tested, reply: &Reply) -> Result<ProblemRow, StageError> {
    let Tested { mut problem, field, .. } = tested;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut reasons = Vec::new();
    for frame in &reply.frames {
        match frame.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
            [b"tests", setup] => problem.setup = joined(&problem.setup, &text(setup)),
            [b"test", test] => problem.tests.push(text(test)),
            [b"skipped", reason] => reasons.push(text(reason)),
            [b"bad", message] => return Err(source.wrong(&field, &text(message))),
            _ => {}
        }
    }
    if problem.tests.is_empty() {
        let reason = reasons.first().map_or("can't be read as Python", String::as_str);
        return Err(source.wrong(&field, &format!("gives no test at all: {reason}")));
    }
    for reason in reasons {
        import.skip(&problem.problem_id, "test", &reason);
    }
    Ok(problem)
}

/// The lines of both, each import once.
fn joined(first: &str, second: &str) -> String {
    let mut lines: Vec<&str> = first.lines().filter(|line| !line.trim().is_empty()).collect();
    let before = lines.clone();
    lines.extend(second.lines().filter(|line| !before.contains(line)));
    lines.join("\n")
}
