//! HumanEval and HumanEvalPack: tests are a Python function `check`; the sandbox takes it apart (`humaneval.py`).

use tracetune_engine::stage::{Context, StageError};

use super::layout::{Source, end_with_newline};
use super::{Import, Layout, ProblemRow};
use crate::python::Python;
use crate::sandbox::{Limits, Reply, Sandbox};

/// Adds the problem of each row; rows of HumanEvalPack in other languages are skipped.
pub(super) fn problems(
    import: &mut Import,
    layout: Layout,
    sources: &[Source],
    cx: &Context,
) -> Result<(), StageError> {
    let sandbox = Sandbox::open(&Python::find()?, Limits::default(), cx)?;
    let mut jobs = Vec::new();
    for source in sources {
        let task = source.text("task_id");
        if let Some(task) = task.iter().find(|task| layout == Layout::HumanEvalPack && !task.starts_with("Python/")) {
            import.skip(task, "problem", "not in Python");
            continue;
        }
        let fields = task.and_then(|_| Ok((source.text("test")?, source.text("entry_point")?)));
        jobs.extend(import.sound(fields)?.map(|fields| (source, fields)));
    }
    let replies = sandbox.map(&jobs, &|| cx.cancelled(), &|_| {}, |worker, (_, (test, entry_point))| {
        worker.call("humaneval", &[test.as_bytes(), entry_point.as_bytes()])
    })?;
    let parted: Vec<(&Source, Reply)> = jobs.iter().map(|(source, _)| *source).zip(replies).collect();
    import.extend(&parted, |(source, reply)| problem(layout, source, reply))
}

fn problem(layout: Layout, source: &Source, reply: &Reply) -> Result<ProblemRow, StageError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (setup, tests) = match reply.frames.first().map(Vec::as_slice) {
        Some([tag, setup, tests @ ..]) if tag == b"tests" => {
            (text(setup), tests.iter().map(|test| text(test)).collect())
        }
        Some([tag, reason]) if tag == b"bad" => return Err(source.wrong("test", &text(reason))),
        _ => return Err(source.wrong("test", "can't be read as Python")),
    };
    let problem = ProblemRow {
        problem_id: source.text("task_id")?,
        split: "test".to_owned(),
        entry_point: source.text("entry_point")?,
        setup,
        tests,
        ..ProblemRow::default()
    };
    if layout == Layout::HumanEvalPack {
        let declaration = source.text("declaration")?;
        let program = |body: String| end_with_newline(format!("{declaration}{body}"));
        let before = [source.optional("import")?, source.optional("test_setup")?, problem.setup];
        return Ok(ProblemRow {
            instruction: source.text("instruction")?,
            reference: program(source.text("canonical_solution")?),
            setup: before
                .map(|part| part.trim().to_owned())
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("\n"),
            buggy: program(source.text("buggy_solution")?),
            mutation: source.text("bug_type")?,
            ..problem
        });
    }
    let prompt = source.text("prompt")?;
    Ok(ProblemRow {
        reference: end_with_newline(format!("{prompt}{}", source.text("canonical_solution")?)),
        instruction: prompt,
        ..problem
    })
}
