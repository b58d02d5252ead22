//! EvalPlus's HumanEval+ and MBPP+ (Liu et al. 2023, arXiv:2305.01210): inputs, whose tests the canonical solution
//! makes (`evalplus.py`).

use std::path::Path;

use tracetune_engine::stage::{Context, StageError};

use super::layout::{mbpp_split, wrong};
use super::{Import, ProblemRow, file};
use crate::python::Python;
use crate::sandbox::{CpuSeconds, Ending, Frame, Limits, Sandbox};

/// CPU time for all inputs of one problem, in seconds; the budget of lines in `asserts.py` comes first.
pub(super) const CPU_LIMIT_S: CpuSeconds = CpuSeconds(120.0);

/// Adds the problem of each line.
pub(super) fn problems(import: &mut Import, path: &Path, cx: &Context) -> Result<(), StageError> {
    // The lines go to Python as they are: what writes them has whole numbers beyond 64 bits, NaN and Infinity.
    let text = file::text(path)?;
    let lines: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(|(at, line)| (at + 1, line)).collect();
    let sandbox = Sandbox::open(&Python::find()?, Limits::default(), cx)?;
    let progress = |done: usize| cx.progress(done as u64, lines.len() as u64, "");
    let replies = sandbox.map(&lines, &|| cx.cancelled(), &progress, |worker, (_, line)| {
        worker.call_for("evalplus", &[line.as_bytes()], CPU_LIMIT_S)
    })?;
    for ((row, _), reply) in lines.iter().zip(replies) {
        let problem =
            read(import, &reply.frames, reply.ending).map_err(|(field, message)| wrong(path, *row, &field, &message));
        let problem = import.sound(problem)?;
        import.problems.extend(problem);
    }
    Ok(())
}

/// What the frames of one line say; the field that is wrong, and how.
fn read(import: &mut Import, frames: &[Frame], ending: Ending) -> Result<ProblemRow, (String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut problem = ProblemRow::default();
    for frame in frames {
        let fields: Vec<&[u8]> = frame.iter().map(Vec::as_slice).collect();
        match *fields {
            [b"problem", task, instruction, reference, entry_point] => {
                problem.problem_id = text(task);
                problem.instruction = text(instruction);
                problem.reference = text(reference);
                problem.entry_point = text(entry_point);
                let number = problem.problem_id.strip_prefix("Mbpp/").and_then(|number| number.parse().ok());
                problem.split = number.map_or("test", mbpp_split).to_owned();
            }
            [b"test", test] => problem.tests.push(text(test)),
            [b"skipped", reason] => import.skip(&problem.problem_id, "test", &text(reason)),
            [b"bad", field, message] => return Err((text(field), text(message))),
            _ => {}
        }
    }
    match ending {
        Ending::Done if problem.tests.is_empty() => Err(("plus_input".to_owned(), "gives no test at all".to_owned())),
        Ending::Done => Ok(problem),
        ending => Err(("canonical_solution".to_owned(), format!("does not get through the inputs: {ending:?}"))),
    }
}
