//! The user's programs are shell scripts here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use tracetune_engine::runs::MetricRow;
use tracetune_engine::stage::{Params as _, RowKey};
use tracetune_engine::table::{Record, read_table_file, table_to_bytes};

use tracetune_engine::stage::Artifact;

use super::*;

fn context(root: &Path, cancel: bool) -> Context {
    Context { cancel: Arc::new(AtomicBool::new(cancel)), threads: 1, ..crate::testing::context(root) }
}

fn three_rows() -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef)]).unwrap()
}

/// Runs a shell script that gets three rows at port `my-rows`.
fn call(root: &Path, script: &str, cancel: bool) -> Result<RecordBatch, StageError> {
    let cx = context(root, cancel);
    let rows = three_rows();
    let inputs = Inputs(BTreeMap::from([("my-rows".to_owned(), Artifact::Table(rows))]));
    match CommandKind::run(&params(script, None), &inputs, &cx)?.remove("rows") {
        Some(Artifact::File(file)) => Ok(read_table_file(file).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn params(script: &str, row_wise: Option<RowWise>) -> Params {
    Params {
        run: ["sh", "-c", script].map(str::to_owned).to_vec(),
        files: Vec::new(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        params: serde_json::Map::new(),
        pass_env: Vec::new(),
        outputs: BTreeMap::new(),
        row_wise,
        segment_rows: segment_rows(),
    }
}

#[test]
fn a_program_gets_its_inputs_and_gives_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let script = "test \"$GREETING\" = hello && cp \"$TRACETUNE_IN_MY_ROWS\" \"$TRACETUNE_OUT\"";
    assert_eq!(call(folder.path(), script, false).unwrap().num_rows(), 3);
}

#[test]
fn an_index_of_pandas_that_is_in_no_column_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let range = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/table/fixtures/range.parquet");
    std::fs::copy(range, folder.path().join("range.parquet")).unwrap();
    let notes = crate::testing::Notes::default();
    let cx = Context { reporter: Arc::new(notes.clone()), ..context(folder.path(), false) };
    let params = params("cp range.parquet \"$TRACETUNE_OUT\"", None);
    CommandKind::run(&params, &Inputs::default(), &cx).unwrap();
    let note = "output `rows`: its pandas index, range(2, 4, 1), is in no column";
    assert!(notes.all().iter().any(|found| found.starts_with(note)), "{:?}", notes.all());
}

#[test]
fn a_figure_that_its_column_does_not_hold_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let schema = MetricRow::schema();
    let field = schema.fields().iter().find(|field| *field.data_type() == DataType::Int64).map(|field| field.name());
    let columns = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Int64 => (field.name(), Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX])) as ArrayRef),
        other => (field.name(), arrow::array::new_null_array(other, 1)),
    });
    let table = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::write(folder.path().join("answer"), table_to_bytes(&table).unwrap()).unwrap();
    let mut params = params("cp answer \"$TRACETUNE_OUT\"", None);
    params.outputs.insert("metrics".to_owned(), OutputKind::Named(outputs::OutputName::Table));
    let cx = context(folder.path(), false);
    let error = CommandKind::run(&params, &Inputs::default(), &cx).unwrap_err().to_string();
    let expected = format!("column `{}` is 18446744073709551615 in row 0, which Int64 can't hold", field.unwrap());
    assert!(error.ends_with(&expected), "{error}");
}

#[test]
fn its_environment_is_what_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let error = call(folder.path(), "env; exit 3", false).unwrap_err().to_string();
    assert!(error.contains("ended with exit status: 3") && error.contains("GREETING=hello"), "{error}");
    assert!(!error.contains("HOME=") && !error.contains("CARGO"), "{error}");
}

#[test]
fn exit_status_75_asks_for_another_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let error = call(folder.path(), "echo busy >&2; exit 75", false).unwrap_err();
    assert!(matches!(&error, StageError::Transient { message, .. } if message.ends_with("busy")), "{error}");
}

#[test]
fn a_missing_output_is_named_with_what_the_program_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let error = call(folder.path(), "echo oh no >&2", false).unwrap_err().to_string();
    assert!(error.contains("wrote nothing to TRACETUNE_OUT") && error.ends_with("oh no"), "{error}");
    let error = call(folder.path(), "echo junk > \"$TRACETUNE_OUT\"", false).unwrap_err().to_string();
    assert!(error.contains("what `sh -c"), "{error}");
}

#[test]
fn neither_an_interrupted_program_nor_one_that_is_done_leaves_children() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let marks = "(while :; do echo x >> marks; sleep 0.05; done) &";
    assert!(matches!(call(folder.path(), &format!("{marks} sleep 60"), true), Err(StageError::Cancelled)));
    assert!(call(folder.path(), &format!("{marks} cp \"$TRACETUNE_IN_MY_ROWS\" \"$TRACETUNE_OUT\""), false).is_ok());
    assert!(started.elapsed().as_secs() < 30);
    let size = || std::fs::metadata(folder.path().join("marks")).map_or(0, |metadata| metadata.len());
    let before = size();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(size(), before);
}

fn row_wise(adds: &[(&str, &str)]) -> RowWise {
    let adds = adds.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
    RowWise { reads: vec!["x".to_owned()], adds }
}

/// What a program gives for three rows that adds an `int64` column `y`, by leaving this table.
fn answer(table: RecordBatch) -> Result<(Vec<i64>, Vec<u32>), StageError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("answer"), table_to_bytes(&table).unwrap()).unwrap();
    let script = "test -s \"$TRACETUNE_IN_ROWS\" && cp answer \"$TRACETUNE_OUT\"";
    let form = CommandKind::row_form(&params(script, Some(row_wise(&[("y", "int64")])))).unwrap();
    let cx = context(folder.path(), false);
    let mut session = form.open(&Inputs::default(), &cx).unwrap();
    let (added, counts) = session.rows(&three_rows(), &[0; 3], &[RowKey([0; 32]); 3], &cx)?;
    Ok((added.column(0).as_primitive::<Int64Type>().values().to_vec(), counts))
}

fn numbers(columns: &[(&str, &[i64])]) -> RecordBatch {
    RecordBatch::try_from_iter(columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        (*name, array)
    }))
    .unwrap()
}

#[test]
fn a_row_wise_program_gives_a_row_for_each_or_says_whose_each_is() {
    assert_eq!(answer(numbers(&[("y", &[7, 8, 9])])).unwrap(), (vec![7, 8, 9], vec![1, 1, 1]));
    let belonging = numbers(&[("_row", &[2, 0, 2]), ("y", &[7, 8, 9])]);
    assert_eq!(answer(belonging).unwrap(), (vec![8, 7, 9], vec![1, 0, 2]));
}

#[test]
fn what_a_row_wise_program_may_not_write_is_named() {
    for (table, expected) in [
        (numbers(&[("y", &[1])]), "wrote 1 rows for 3 of its input, and no column `_row`"),
        (numbers(&[("_row", &[0, 3]), ("y", &[1, 2])]), "wrote row 1: `_row` is 3, must be between 0 and 2"),
        (numbers(&[("y", &[1, 2, 3]), ("z", &[1, 2, 3])]), "wrote a column `z` that is not among `row_wise.adds`"),
        (numbers(&[("_row", &[0])]), "wrote another table than `row_wise.adds` says: column `y` is missing"),
    ] {
        let error = answer(table).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn types_are_known_by_name() {
    let wrong = params("true", Some(row_wise(&[("y", "list of number")]))).validate().unwrap_err();
    assert_eq!(wrong.message, "adds `y` of a type `list of number`, which there is not");
    assert!(params("true", Some(row_wise(&[("y", "list of list of string")]))).validate().is_ok());
}

#[test]
fn a_program_that_stays_answers_until_its_input_is_closed() {
    use std::io::{BufRead, BufReader, Write};
    let folder = tempfile::tempdir().unwrap();
    let script = "echo ready >&2; while read -r line; do echo \"got $line\"; done; echo over >&2; exit 3";
    let program = worker(folder.path(), script);
    let mut worker = BufReader::new(program.start(&context(folder.path(), false)).unwrap());
    let mut answers = String::new();
    for question in ["one\n", "two\n"] {
        worker.get_mut().write_all(question.as_bytes()).unwrap();
        worker.read_line(&mut answers).unwrap();
    }
    assert_eq!(answers, "got one\ngot two\n");
    let ended = worker.into_inner().end().unwrap();
    assert_eq!((ended.status.code(), ended.tail.as_str()), (Some(3), "ready\nover"));
}

#[test]
fn an_interrupted_run_does_not_wait_for_an_answer() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(folder.path(), "sleep 1000").start(&context(folder.path(), true)).unwrap();
    assert!(worker.read(&mut [0]).is_err_and(|error| error.to_string().contains("interrupted")));
}

fn worker(folder: &Path, script: &str) -> crate::program::Program {
    crate::program::Program {
        command: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        folder: folder.to_owned(),
    }
}
