//! Beside `tests/cli/python.rs`, which has what a user sees.

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};

use super::marshal::{Reader, Value, Writer, array};

/// What `python3` prints, given bytes on its standard input.
fn python(program: &str, input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("python3")
        .args(["-B", "-X", "utf8", "-c", program])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program}");
    output.stdout
}

#[test]
fn the_key_holds_what_a_result_depends_on_and_nothing_else() {
    let program = format!("{}\n{}", include_str!("analyze.py"), include_str!("analyze_cases.py"));
    let wrong = String::from_utf8(python(&program, b"")).expect("text");
    assert_eq!(wrong, "", "cases in analyze_cases.py");
}

#[test]
fn columns_come_back_from_python_as_they_were() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let texts = StringArray::from(vec![Some("a\0\u{1F600}"), None, Some("")]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![i64::MIN, -1, i64::MAX])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(1 << 30)])),
        Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::INFINITY)])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(texts),
        Arc::new(lists),
    ];
    for column in columns {
        let mut writer = Writer::default();
        writer.column(&column).expect("a plain type");
        let echo =
            "import marshal, sys; sys.stdout.buffer.write(marshal.dumps(marshal.loads(sys.stdin.buffer.read()), 2))";
        let bytes = python(echo, &writer.0);
        let values = Reader(&bytes).value().and_then(Value::list).expect("a list");
        assert_eq!(&array(values, column.data_type()).expect("its values"), &column);
    }
}

#[test]
fn python_sees_values_of_all_widths() {
    let structs: ArrayRef = Arc::new(arrow::array::StructArray::from(vec![(
        Arc::new(Field::new("n", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
    )]));
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    let bytes: ArrayRef = Arc::new(arrow::array::BinaryArray::from_vec(vec![b"\xff"]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(7)])]));
    for (column, expected) in [
        (structs, "[{'n': 1}, {'n': None}]"),
        (large, "[18446744073709551615]"),
        (bytes, "[b'\\xff']"),
        (lists, "[[7]]"),
    ] {
        let mut writer = Writer::default();
        writer.column(&column).expect("a plain type");
        let printed = python("import marshal, sys; print(marshal.loads(sys.stdin.buffer.read()))", &writer.0);
        assert_eq!(String::from_utf8_lossy(&printed).trim(), expected);
    }
}

#[test]
fn what_is_no_answer_is_refused_without_a_panic() {
    for bytes in
        [&b""[..], b"[", b"[\xff\xff\xff\xff", b"u\x05\0\0\0ab", b"l\xff\xff\xff\x7f", b"?", b"u\x01\0\0\0\xff"]
    {
        assert!(Reader(bytes).value().is_err(), "{bytes:?}");
    }
    assert!(array(vec![Value::Text("1".to_owned())], &DataType::Int64).is_err());
}
