//! QuixBugs (Lin et al. 2017, doi:10.1145/3135932.3135941): a folder with `python_programs`, `correct_python_programs`
//! and `json_testcases`, in which a program has one file of its name each.

use std::path::{Path, PathBuf};

use tracetune_engine::stage::{Context, StageError};

use super::evalplus::CPU_LIMIT_S;
use super::{Import, ProblemRow, file};
use crate::python::Python;
use crate::sandbox::{Ending, Frame, Limits, Sandbox};

const FOLDERS: [(&str, &str); 3] =
    [("python_programs", "py"), ("correct_python_programs", "py"), ("json_testcases", "json")];

/// All files that [`problems`] reads, sorted.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = Vec::new();
    for (name, ending) in FOLDERS {
        let part = folder.join(name);
        let entries = std::fs::read_dir(&part).map_err(|error| {
            StageError::input(format!("can't read `{}`: {error}; QuixBugs is a folder with it in it", part.display()))
        })?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Adds each program that has a correct version and JSON test cases.
pub(super) fn problems(import: &mut Import, folder: &Path, cx: &Context) -> Result<(), StageError> {
    let files = files(folder)?;
    let has = |path: &PathBuf| files.binary_search(path).is_ok();
    let mut jobs = Vec::new();
    for path in files.iter().filter(|path| path.starts_with(folder.join(FOLDERS[0].0))) {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = FOLDERS.map(|(folder_name, ending)| folder.join(folder_name).join(format!("{name}.{ending}")));
        // Beside the programs stand their old tests and the class that the programs on graphs share.
        if name == "node" || name.ends_with("_test") {
            continue;
        }
        if let Some(lacking) = parts.iter().position(|part| !has(part)) {
            import.skip(name, "problem", &format!("nothing in {}", FOLDERS[lacking].0));
            continue;
        }
        let texts = [file::text(&parts[0])?, file::text(&parts[1])?, file::text(&parts[2])?];
        jobs.push((name.to_owned(), texts));
    }
    let sandbox = Sandbox::open(&Python::find()?, Limits::default(), cx)?;
    let replies = sandbox.map(&jobs, &|| cx.cancelled(), &|_| {}, |worker, (name, [buggy, correct, cases])| {
        let fields = [name, buggy, correct, cases].map(|field| field.as_bytes());
        worker.call_for("quixbugs", &fields, CPU_LIMIT_S)
    })?;
    for ((name, _), reply) in jobs.iter().zip(replies) {
        let problem = read(import, name, &reply.frames, reply.ending)
            .map_err(|message| StageError::input(format!("`{}`, program `{name}`: {message}", folder.display())));
        let problem = import.sound(problem)?;
        import.problems.extend(problem);
    }
    Ok(())
}

/// What the frames of one program say, or what is wrong with it.
fn read(import: &mut Import, name: &str, frames: &[Frame], ending: Ending) -> Result<ProblemRow, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut problem = ProblemRow {
        problem_id: format!("quixbugs/{name}"),
        split: "test".to_owned(),
        entry_point: name.to_owned(),
        mutation: "one-line".to_owned(),
        ..ProblemRow::default()
    };
    for frame in frames {
        let fields: Vec<&[u8]> = frame.iter().map(Vec::as_slice).collect();
        match *fields {
            [b"problem", instruction, buggy, reference] => {
                problem.instruction = text(instruction);
                problem.buggy = text(buggy);
                problem.reference = text(reference);
            }
            [b"test", test] => problem.tests.push(text(test)),
            [b"skipped", reason] => import.skip(&problem.problem_id, "test", &text(reason)),
            [b"bad", field, message] => return Err(format!("`{}`: {}", text(field), text(message))),
            _ => {}
        }
    }
    match ending {
        Ending::Done if problem.tests.is_empty() => Err("its test cases give no test".to_owned()),
        Ending::Done => Ok(problem),
        ending => Err(format!("the correct program does not get through the test cases: {ending:?}")),
    }
}
