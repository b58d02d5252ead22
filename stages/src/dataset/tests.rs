use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tracetune_engine::stage::{Params as _, Reporter};

use super::*;

struct Silent;

impl Reporter for Silent {
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn note(&self, _: &str) {}
}

fn context(root: &Path) -> Context {
    Context {
        cancel: Arc::new(AtomicBool::new(false)),
        threads: 2,
        root: root.to_owned(),
        scratch: root.to_owned(),
        checkpoint: root.join("checkpoint"),
        reporter: Arc::new(Silent),
    }
}

fn params(json: serde_json::Value) -> Params {
    let params: Params = serde_json::from_value(json).unwrap();
    params.validate().unwrap();
    params
}

fn import(root: &Path, json: serde_json::Value) -> Result<Vec<ProblemRow>, StageError> {
    let params = params(json);
    let outputs = Dataset::run(&params, &Inputs::default(), &context(root))?;
    let Artifact::Table(table) = &outputs["problems"] else { panic!("a table") };
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
    Ok(ProblemRow::read(&RecordBatch::try_new(ProblemRow::schema(), columns).unwrap())?)
}

fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

const MBPP: &str = r#"{"text": "Add.", "code": "def add(a, b):\r\n\treturn a + b", "task_id": 601, "test_setup_code": "", "test_list": ["assert add(1, 2) == 3"], "challenge_test_list": []}
{"text": "Sub.", "code": "def sub(a, b):\n    return a - b", "task_id": 511, "test_setup_code": "import math", "test_list": ["assert sub(1, 2) == -1"]}
"#;

#[test]
fn mbpp_rows_become_problems_in_the_published_splits() {
    let folder = folder_with("mbpp.jsonl", MBPP);
    let problems = import(folder.path(), serde_json::json!({"source": "mbpp.jsonl", "layout": "mbpp"})).unwrap();
    assert_eq!(problems[0].reference, "def add(a, b):\n\treturn a + b\n");
    assert_eq!((problems[0].entry_point.as_str(), problems[0].split.as_str()), ("add", "train"));
    assert_eq!((problems[1].setup.as_str(), problems[1].split.as_str()), ("import math", "dev"));
}

#[test]
fn human_eval_asserts_become_tests() {
    let row = serde_json::json!({
        "task_id": "HumanEval/0", "entry_point": "twice", "prompt": "def twice(x):\n    \"\"\"Doubles.\"\"\"\n",
        "canonical_solution": "    return 2 * x\n",
        "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-3) == -6\n"
    });
    let folder = folder_with("h.jsonl", &format!("{row}\n"));
    let problems = import(folder.path(), serde_json::json!({"source": "h.jsonl", "layout": "humaneval"})).unwrap();
    assert_eq!(problems[0].tests, ["assert twice(1) == 2", "assert twice(-3) == -6"]);
    assert!(problems[0].reference.ends_with("return 2 * x\n"));
}

#[test]
fn fields_are_mapped() {
    let folder = folder_with(
        "own.jsonl",
        r#"{"id": 7, "task": "t", "solution": "def f():\n    return 1\n", "asserts": ["assert f() == 1"], "wrong": "def f(): return 2"}"#,
    );
    let fields = serde_json::json!({"problem_id": "id", "instruction": "task", "reference": "solution", "tests": "asserts", "buggy": "wrong"});
    let problems = import(folder.path(), serde_json::json!({"source": "own.jsonl", "fields": fields})).unwrap();
    assert_eq!((problems[0].problem_id.as_str(), problems[0].buggy.as_str()), ("7", "def f(): return 2"));
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
    let folder = tempfile::tempdir().unwrap();
    let error = import(folder.path(), serde_json::json!({"source": "none.jsonl", "layout": "mbpp"})).unwrap_err();
    assert!(error.to_string().contains("can't read"), "{error}");
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
fn the_real_files_import_whole() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !data.is_dir() {
        return;
    }
    for (file, layout, rows) in
        [("mbpp.jsonl", "mbpp", 974), ("sanitized-mbpp.json", "mbpp", 427), ("HumanEval.jsonl", "humaneval", 164)]
    {
        let problems = import(&data, serde_json::json!({"source": file, "layout": layout})).unwrap();
        assert_eq!(problems.len(), rows, "{file}");
        assert!(problems.iter().all(|problem| !problem.tests.is_empty() && !problem.entry_point.is_empty()), "{file}");
    }
}
