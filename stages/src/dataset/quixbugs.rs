//! QuixBugs (Lin et al. 2017, doi:10.1145/3135932.3135941): a folder with `python_programs` and
//! `correct_python_programs`, in which a program has one file of its name each, and its tests in `json_testcases` or, for
//! the nine programs on graphs, in `python_testcases`.

use std::path::{Path, PathBuf};

use tracetune_engine::stage::{Context, StageError};

use super::evalplus::CPU_LIMIT_S;
use super::{Import, ProblemRow, file};
use crate::python::Python;
use crate::sandbox::{Ending, Frame, Limits, Sandbox};

const FOLDERS: [(&str, &str); 3] =
    [("python_programs", "py"), ("correct_python_programs", "py"), ("json_testcases", "json")];
/// Tests for pytest, `test_PROGRAM.py`, and the class `Node` that they make graphs of. May be missing.
const MODULES: &str = "python_testcases";
const NODE: &str = "node.py";

/// All files that [`problems`] reads, sorted.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = Vec::new();
    let modules = folder.join(MODULES).is_dir().then_some((MODULES, "py"));
    for (name, ending) in FOLDERS.into_iter().chain(modules) {
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

/// What is known of a program: the wrong and the correct version, and the tests in one of two forms.
struct Program {
    name: String,
    buggy: String,
    correct: String,
    cases: String,
    module: String,
}

/// Adds each program that has a correct version and test cases.
pub(super) fn problems(import: &mut Import, folder: &Path, cx: &Context) -> Result<(), StageError> {
    let files = files(folder)?;
    let text = |part: &str, name: &str| -> Result<Option<String>, StageError> {
        let path = folder.join(part).join(name);
        if files.binary_search(&path).is_ok() { file::text(&path).map(Some) } else { Ok(None) }
    };
    let node = match text(MODULES, NODE)? {
        Some(node) => node,
        None => text(FOLDERS[0].0, NODE)?.unwrap_or_default(),
    };
    let has_modules = files.iter().any(|path| path.starts_with(folder.join(MODULES)));
    let mut programs = Vec::new();
    for path in files.iter().filter(|path| path.starts_with(folder.join(FOLDERS[0].0))) {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        // Beside the programs stand their old tests and the class that the programs on graphs share.
        if name == "node" || name.ends_with("_test") {
            continue;
        }
        let [buggy, correct, cases] = FOLDERS.map(|(part, ending)| text(part, &format!("{name}.{ending}")));
        let (buggy, Some(correct)) = (buggy?.unwrap_or_default(), correct?) else {
            import.skip(name, "problem", &format!("nothing in {}", FOLDERS[1].0));
            continue;
        };
        let (cases, module) = match (cases?, text(MODULES, &format!("test_{name}.py"))?) {
            (Some(cases), _) => (cases, String::new()),
            (None, Some(module)) => (String::new(), module),
            (None, None) => {
                let or_modules = if has_modules { format!(" or {MODULES}") } else { String::new() };
                import.skip(name, "problem", &format!("nothing in {}{or_modules}", FOLDERS[2].0));
                continue;
            }
        };
        programs.push(Program { name: name.to_owned(), buggy, correct, cases, module });
    }
    let sandbox = Sandbox::open(&Python::find()?, Limits::default(), cx)?;
    let replies = sandbox.map(&programs, &|| cx.cancelled(), &|_| {}, |worker, program| {
        let Program { name, buggy, correct, cases, module } = program;
        let fields = [name, buggy, correct, cases, module, &node].map(|field| field.as_bytes());
        worker.call_for("quixbugs", &fields, CPU_LIMIT_S)
    })?;
    for (Program { name, .. }, reply) in programs.iter().zip(replies) {
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
            [b"setup", setup] => problem.setup = text(setup),
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
