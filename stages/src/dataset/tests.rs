use std::path::PathBuf;
use std::sync::Arc;

use tracetune_engine::stage::{Params as _, Reporter};

use super::params::BUILTIN;
use super::*;
pub(crate) use crate::testing::context;

mod contests;
mod modules;

fn params(json: serde_json::Value) -> Params {
    let params: Params = serde_json::from_value(json).unwrap();
    params.validate().unwrap();
    params
}

fn import(root: &Path, json: serde_json::Value) -> Result<Vec<ProblemRow>, StageError> {
    Ok(import_and_skip(root, json)?.0)
}

/// The problems, and what was left out as `PROBLEM PART COUNT REASON`.
fn import_and_skip(root: &Path, json: serde_json::Value) -> Result<(Vec<ProblemRow>, Vec<String>), StageError> {
    let params = params(json);
    let outputs = Dataset::run(&params, &Inputs::default(), &context(root))?;
    let Artifact::Table(table) = &outputs.0["problems"] else { panic!("a table") };
    let Artifact::Table(skipped) = &outputs.0["skipped"] else { panic!("a table") };
    let text = |row: SkippedRow| format!("{} {} {} {}", row.problem_id, row.part, row.count, row.reason);
    let skipped = SkippedRow::read(skipped)?.into_iter().map(text).collect();
    assert_eq!(table.schema(), params.schema());
    let lacking = ProblemRow::schema().fields().len() - table.num_columns();
    assert!(lacking == 0 || table.num_columns() >= ALWAYS);
    // Columns that the source lacks are read as empty.
    let empty = arrow::array::StringArray::from(vec![""; table.num_rows()]);
    let columns = ProblemRow::schema()
        .fields()
        .iter()
        .map(|field| table.column_by_name(field.name()).cloned().unwrap_or_else(|| Arc::new(empty.clone())))
        .collect();
    Ok((ProblemRow::read(&RecordBatch::try_new(ProblemRow::schema(), columns).unwrap())?, skipped))
}

/// Rows of ours in the layouts of others.
fn fixture(source: &str, layout: &str) -> (Vec<ProblemRow>, Vec<String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    import_and_skip(&folder, serde_json::json!({"source": source, "layout": layout})).unwrap()
}

/// What plain Python makes of tests: a letter per test, `.` or `F`.
fn as_python(source: &str, problem: &ProblemRow) -> String {
    use std::io::Write as _;
    use std::process::Stdio;
    let job = serde_json::json!({"source": source, "setup": problem.setup, "tests": problem.tests}).to_string();
    let mut command = crate::python::Python::find().unwrap().command();
    command.args(["-c", include_str!("tests/as_python.py")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(job.as_bytes()).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim_end().to_owned()
}

fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

#[test]
fn mbpp_rows_become_problems_in_the_published_splits() {
    let (problems, _) = fixture("mbpp.jsonl", "mbpp");
    assert_eq!(problems[0].reference, "def add(a, b):\n\treturn a + b\n");
    assert_eq!((problems[0].entry_point.as_str(), problems[0].split.as_str()), ("add", "train"));
    assert_eq!((problems[1].setup.as_str(), problems[1].split.as_str()), ("import math", "dev"));
    assert_eq!(problems[1].entry_point, "distance");
    let (problems, _) = fixture("sanitized-mbpp.json", "mbpp");
    assert_eq!((problems[0].setup.as_str(), problems[0].split.as_str()), ("import math\nimport re", "test"));
    assert_eq!(problems[0].instruction, "Write a function to negate a number.");
}

#[test]
fn human_eval_asserts_become_tests_and_other_checks_stay_whole() {
    let (problems, _) = fixture("humaneval.jsonl", "humaneval");
    assert_eq!(problems[0].tests, ["assert twice(1) == 2", "assert twice(-3) == -6"]);
    assert!(problems[0].reference.ends_with("return 2 * x\n"));
    assert_eq!(problems[1].tests, ["check(half)"]);
    assert!(problems[1].setup.starts_with("def check(candidate):"), "{}", problems[1].setup);
}

#[test]
fn human_eval_pack_brings_its_bugs() {
    let (problems, skipped) = fixture("humanevalpack.jsonl", "humanevalpack");
    let [problem] = problems.as_slice() else { panic!("one row is in Python") };
    assert_eq!(problem.buggy, "import math\n\n\ndef twice(x):\n    return 3 * x\n");
    assert_eq!((problem.mutation.as_str(), problem.setup.as_str()), ("value misuse", ""));
    assert_eq!(problem.tests, ["assert twice(1) == 2", "assert twice(-3) == -6"]);
    assert_eq!(skipped, ["CPP/0 problem 1 not in Python"]);
}

#[test]
fn eval_plus_inputs_become_tests_by_the_reference() {
    let (problems, skipped) = fixture("HumanEvalPlus.jsonl", "evalplus");
    let tests = ["assert twice(1) == 2", "assert twice(-3) == -6", "assert twice('ab') == 'abab'"];
    assert_eq!(problems[0].tests[..3], tests);
    assert_eq!(problems[0].tests[3], "assert twice(12345678901234567890123) == 24691357802469135780246");
    assert_eq!(problems[1].tests[0], "assert abs(half(4) - 2.0) <= 0.0001002");
    assert_eq!(problems[1].tests[1..], ["assert half(float('inf')) == float('inf')"]);
    assert_eq!(
        skipped,
        [
            "HumanEval/0 test 1 the reference raises TypeError",
            "HumanEval/1 test 1 is nan",
            "HumanEval/1 test 1 the reference raises TypeError"
        ]
    );
    let (problems, _) = fixture("MbppPlus.jsonl", "evalplus");
    assert_eq!(problems[0].tests[0], "assert set(similar_elements((3, 4, 5, 6), (5, 7, 4, 10))) == {4, 5}");
    assert_eq!(problems[1].tests, ["assert day(1) == {'day': [1, None]}", "assert day(True) == {'day': [True, None]}"]);
    assert_eq!((problems[0].split.as_str(), problems[1].split.as_str()), ("prompt", "train"));
    assert!(problems[0].instruction.starts_with("Write a function to find"), "{}", problems[0].instruction);
}

#[test]
fn quix_bugs_programs_need_a_correct_version_and_test_cases() {
    let (problems, skipped) = fixture("quixbugs", "quixbugs");
    let [pairs, _] = problems.as_slice() else { panic!("two programs have test cases") };
    assert_eq!(
        pairs.tests,
        ["assert list(pairs([])) == []", "assert list(pairs([1, 2])) == [(1, 1), (1, 2), (2, 1), (2, 2)]"]
    );
    assert!(pairs.buggy.ends_with("yield x, x\n") && pairs.reference.ends_with("yield x, y\n"));
    assert!(pairs.instruction.starts_with("All pairs"));
    assert_eq!(
        skipped,
        [
            "walk problem 1 nothing in json_testcases or python_testcases",
            "quixbugs/pairs test 1 the correct program and the test case disagree"
        ]
    );
}

/// The importers' tests are tests: each reference passes its own, each bug that comes with one does not.
#[test]
fn what_the_sandbox_wrote_down_holds_in_the_verifier() {
    let Some(sandbox) = crate::judge::tests::sandbox() else { return };
    for (source, layout) in [
        ("humaneval.jsonl", "humaneval"),
        ("humanevalpack.jsonl", "humanevalpack"),
        ("HumanEvalPlus.jsonl", "evalplus"),
        ("MbppPlus.jsonl", "evalplus"),
        ("quixbugs", "quixbugs"),
        ("apps/train.jsonl", "apps"),
        ("codecontests/valid-00000-of-00001.jsonl", "codecontests"),
        ("classeval.json", "classeval"),
    ] {
        // A problem may come without a solution.
        for problem in fixture(source, layout).0.into_iter().filter(|problem| !problem.reference.is_empty()) {
            let job = |source: &str| crate::judge::Job {
                source: source.to_owned(),
                setup: problem.setup.clone(),
                tests: problem.tests.clone(),
                reference: Some(problem.reference.clone()),
                // What solutions of APPS count on.
                prelude: if layout == "apps" { "from typing import *".to_owned() } else { String::new() },
            };
            let jobs = [job(&problem.reference), job(&problem.buggy)];
            let verdicts = crate::judge::judge(sandbox, &jobs, &|| false, &|_| {}).unwrap();
            let outcomes = [&verdicts[0], &verdicts[1]].map(|verdict| verdict.outcome.to_string());
            let bug = if problem.buggy.is_empty() { "invalid" } else { "fail" };
            assert_eq!(outcomes, ["pass", bug], "{}: {:?}", problem.problem_id, verdicts[0]);
        }
    }
}

#[test]
fn fields_are_mapped() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    let fields = serde_json::json!({"problem_id": "id", "instruction": "task", "reference": "solution", "tests": "asserts", "buggy": "wrong"});
    let problems = import(&folder, serde_json::json!({"source": "own.jsonl", "fields": fields})).unwrap();
    assert_eq!((problems[0].problem_id.as_str(), problems[1].buggy.as_str()), ("7", "def f():\n    return 1\n"));
}

#[test]
fn parquet_is_read_by_the_same_field_map() {
    let folder = tempfile::tempdir().unwrap();
    let (problems, _) = fixture("mbpp.jsonl", "mbpp");
    let bytes = tracetune_engine::table::table_to_bytes(&ProblemRow::write(&problems).unwrap()).unwrap();
    std::fs::write(folder.path().join("own.parquet"), bytes).unwrap();
    let again = import(folder.path(), serde_json::json!({"source": "own.parquet", "fields": {"buggy": "reference"}}));
    assert_eq!(again.unwrap()[1], ProblemRow { buggy: problems[1].reference.clone(), ..problems[1].clone() });
    let error = import(folder.path(), serde_json::json!({"source": "own.parquet", "fields": {"tests": "asserts"}}));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("own.parquet`, row 1, field `asserts`"), "{error}");
}

#[test]
fn tests_are_thinned_on_request() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    let json = serde_json::json!({"source": "sanitized-mbpp.json", "layout": "mbpp", "tests": {"keep": 1}});
    assert_eq!(import(&folder, json).unwrap()[0].tests, ["assert negate(1) == -1"]);
}

#[test]
fn a_broken_row_is_named_with_file_row_and_field() {
    let broken = [
        ("{\"text\": 1}\n", "row 1, field `task_id`: is missing"),
        ("not json\n", "line 1: not JSON"),
        ("[1]\n", "row 1: not a JSON object"),
        (r#"{"task_id": 1, "text": "t", "code": "c", "test_list": "x"}"#, "field `test_list`"),
    ];
    for (text, expected) in broken {
        let folder = folder_with("broken.jsonl", text);
        let error = import(folder.path(), serde_json::json!({"source": "broken.jsonl", "layout": "mbpp"})).unwrap_err();
        assert!(error.to_string().contains("broken.jsonl") && error.to_string().contains(expected), "{error}");
    }
    let plus = [
        ("x", "row 1: not JSON"),
        (
            r#"{"task_id": "Mbpp/1", "entry_point": "f", "prompt": "p", "canonical_solution": "def f(): return 1", "base_input": [[]]}"#,
            "field `plus_input`: is missing",
        ),
        (
            r#"{"task_id": "Mbpp/1", "entry_point": "f", "prompt": "p", "canonical_solution": "def f(:", "base_input": [[]], "plus_input": []}"#,
            "field `canonical_solution`: can't be loaded: SyntaxError",
        ),
        (
            r#"{"task_id": "Mbpp/1", "entry_point": "f", "prompt": "p", "canonical_solution": "def f(): return 1", "base_input": [], "plus_input": []}"#,
            "gives no test at all",
        ),
    ];
    for (text, expected) in plus {
        let folder = folder_with("plus.jsonl", text);
        let error =
            import(folder.path(), serde_json::json!({"source": "plus.jsonl", "layout": "evalplus"})).unwrap_err();
        assert!(error.to_string().contains("plus.jsonl") && error.to_string().contains(expected), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = import(folder.path(), serde_json::json!({"source": ".", "layout": "quixbugs"})).unwrap_err();
    assert!(error.to_string().contains("python_programs"), "{error}");
    let error = import(folder.path(), serde_json::json!({"source": "none.jsonl", "layout": "mbpp"})).unwrap_err();
    assert!(error.to_string().contains("can't read"), "{error}");
}

#[test]
fn broken_rows_are_left_out_and_told_of_on_request() {
    let folder = folder_with(
        "some.jsonl",
        "{\"a\": 1}\nnonsense\n\n{\"problem_id\": 1, \"instruction\": \"i\", \"reference\": \"r\", \"tests\": [\"assert 1\"]}\n[]\n",
    );
    let json = serde_json::json!({"source": "some.jsonl", "skip_broken": true});
    let (problems, skipped) = import_and_skip(folder.path(), json).unwrap();
    assert_eq!(problems.len(), 1);
    for (line, place) in
        skipped.iter().zip(["line 2: not JSON", "row 5: not a JSON object", "row 1, field `reference`"])
    {
        assert!(line.contains(place), "{line}");
    }
    assert_eq!(skipped.len(), 3);
}

/// Keeps the notes.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl Reporter for Heard {
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// What is noted where a file has these lines and broken ones are left out.
fn notes_on(lines: &str) -> Vec<String> {
    let folder = folder_with("some.jsonl", lines);
    let heard = Arc::new(Heard::default());
    let cx = Context { reporter: Arc::clone(&heard) as Arc<dyn Reporter>, ..context(folder.path()) };
    let params = params(serde_json::json!({"source": "some.jsonl", "skip_broken": true}));
    Dataset::run(&params, &Inputs::default(), &cx).unwrap();
    let notes = heard.0.lock().unwrap();
    notes.clone()
}

#[test]
fn broken_rows_are_noted_by_reason_the_most_frequent_first() {
    let lines = format!("nonsense\n{}[]\n", "{\"problem_id\": \"p\"}\n".repeat(500));
    let notes = notes_on(&lines);
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].starts_with("left out 500 problems: field `reference`: is missing"), "{notes:?}");
    assert!(notes[0].ends_with(", e.g. row 2"), "{notes:?}");
    let others: Vec<&str> = notes[1..].iter().map(String::as_str).collect();
    assert!(others.contains(&"left out 1 problem: not a JSON object, e.g. row 502"), "{notes:?}");
    assert!(others.contains(&"left out 1 problem: not JSON: expected ident, e.g. line 1"), "{notes:?}");
}

#[test]
fn many_reasons_are_noted_in_few_lines() {
    let mut import = Import::new(true);
    for number in 0..15 {
        import.skip("p", "test", &format!("reason {number}"));
    }
    let heard = Arc::new(Heard::default());
    import.tell(&Context { reporter: Arc::clone(&heard) as Arc<dyn Reporter>, ..context(Path::new("")) });
    let notes = heard.0.lock().unwrap();
    assert_eq!(notes.len(), 11, "{notes:?}");
    assert_eq!(notes[0], "left out 1 test: reason 0, e.g. of `p`");
    assert_eq!(notes[10], "left out 5 more for other reasons: see the output `skipped`");
}

#[test]
fn hashed_splits_do_not_depend_on_the_other_problems() {
    let shares = BTreeMap::from([("dev".to_owned(), 0.2), ("train".to_owned(), 0.8)]);
    let dev = (0..1000).filter(|i| split_of(&format!("p/{i}"), &shares) == "dev").count();
    assert!((150..250).contains(&dev), "{dev} of 1000");
    assert_eq!(split_of("p/1", &shares), split_of("p/1", &shares));
}

#[test]
fn the_builtin_corpus_grows_without_changing() {
    let folder = tempfile::tempdir().unwrap();
    let few = import(folder.path(), serde_json::json!({"source": BUILTIN, "sizes": {"test": 4}})).unwrap();
    let more = import(folder.path(), serde_json::json!({"source": BUILTIN, "sizes": {"test": 6, "seed": 2}})).unwrap();
    let tests: Vec<_> = more.iter().filter(|problem| problem.split == "test").cloned().collect();
    assert_eq!(few[..], tests[..4]);
    assert!(few.iter().all(|problem| !problem.buggy.is_empty() && problem.fix.is_empty()));
    assert!(more.iter().filter(|problem| problem.split == "seed").all(|problem| !problem.fix.is_empty()));
}

#[test]
fn no_other_seed_has_a_program_of_the_test_split_that_settings_were_chosen_on() {
    let folder = tempfile::tempdir().unwrap();
    let programs = |json: serde_json::Value| -> BTreeSet<String> {
        let problems = import(folder.path(), json).unwrap();
        problems.into_iter().flat_map(|problem| [problem.reference, problem.buggy]).collect()
    };
    let test = |seed: u64, size: usize| serde_json::json!({"source": BUILTIN, "sizes": {"test": size}, "seed": seed});
    assert!(programs(test(1, 400)).is_disjoint(&programs(test(2, 400))));
    // Held fixed, they are those of that seed whatever the pipeline's is.
    let held = serde_json::json!({"source": BUILTIN, "sizes": {"test": 20}, "seed": 2, "corpus": 1});
    assert_eq!(programs(held), programs(test(1, 20)));
}

/// Runs where TRACETUNE_TEST_DATA names a folder with the published files.
#[test]
fn the_real_files_import_whole() {
    let Some(data) = std::env::var_os("TRACETUNE_TEST_DATA").map(PathBuf::from) else { return };
    for (file, layout, rows) in
        [("mbpp.jsonl", "mbpp", 974), ("sanitized-mbpp.json", "mbpp", 427), ("HumanEval.jsonl", "humaneval", 164)]
    {
        let problems = import(&data, serde_json::json!({"source": file, "layout": layout})).unwrap();
        assert_eq!(problems.len(), rows, "{file}");
        assert!(problems.iter().all(|problem| !problem.tests.is_empty() && !problem.entry_point.is_empty()), "{file}");
    }
}
