//! Problems of contests: LiveCodeBench, APPS, CodeContests.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};

use super::*;

#[test]
fn live_code_bench_has_public_tests_and_packed_ones_in_one_form() {
    let (problems, skipped) = fixture("livecodebench.jsonl", "livecodebench");
    assert_eq!(
        problems[0].tests,
        [
            r#"{"stdin": "3\n1 2 3\n", "stdout": "6\n"}"#,
            r#"{"stdin": "1\n-4\n", "stdout": "-4\n"}"#,
            r#"{"stdin": "2\n'é' \"\n", "stdout": "x\n"}"#
        ]
    );
    assert_eq!((problems[0].problem_id.as_str(), problems[0].split.as_str()), ("livecodebench/sum_a", "test"));
    assert_eq!((problems[0].reference.as_str(), problems[0].entry_point.as_str()), ("", ""));
    assert_eq!(skipped, Vec::<String>::new());
}

#[test]
fn live_code_bench_s_functional_tests_call_a_method_of_solution() {
    let (problems, _) = fixture("livecodebench.jsonl", "livecodebench");
    assert_eq!(
        problems[1].tests,
        [
            "assert Solution().pairSums([1, 2], 3) == [4, 5]",
            "assert Solution().pairSums([], 12345678901234567890123) == []"
        ]
    );
    assert_eq!(problems[1].entry_point, "pairSums");
    assert!(problems[1].instruction.ends_with("-> List[int]:\n        "), "{}", problems[1].instruction);
}

#[test]
fn apps_takes_the_first_solution_in_python_3() {
    let (problems, skipped) = fixture("apps/train.jsonl", "apps");
    let larger = &problems[0];
    assert_eq!((larger.problem_id.as_str(), larger.split.as_str()), ("apps/train/0", "train"));
    assert_eq!(larger.reference, "a, b = map(int, input().split())\nprint(max(a, b))\n");
    assert_eq!(
        larger.tests,
        [r#"{"stdin": "1 2\n", "stdout": "2\n"}"#, r#"{"stdin": "7 3\n", "stdout": "7"}"#],
        "a list of lines is a text"
    );
    assert_eq!(as_python(&larger.reference, larger), "..");
    assert_eq!(as_python("a, b = map(int, input().split())\nprint(a)\n", larger), "F.");
    assert!(skipped.contains(&"apps/train/3 problem 1 has no tests".to_owned()), "{skipped:?}");
}

#[test]
fn apps_calls_are_written_as_the_solution_gives_them() {
    let (problems, skipped) = fixture("apps/train.jsonl", "apps");
    let tests = ["assert ends([1, 2, 3]) == (1, 3)", "assert ends([4]) == (4, 4)"];
    assert_eq!(
        (problems[1].tests.as_slice(), problems[1].entry_point.as_str()),
        (&tests.map(str::to_owned)[..], "ends")
    );
    assert!(skipped.contains(&"apps/train/2 reference 1 no solution is Python 3".to_owned()), "{skipped:?}");
    for reason in ["the reference raises IndexError", "the solution and the test disagree"] {
        assert!(skipped.contains(&format!("apps/train/1 test 1 {reason}")), "{skipped:?}");
    }
    // Without a solution there is nothing to ask: outputs that all stand in a list of their own are taken out of it.
    assert_eq!(problems[2].tests, ["assert Solution().look({1: [2]}, 1) == [2]"]);
}

#[test]
fn code_contests_joins_its_tests_and_takes_python_3() {
    let (problems, skipped) = fixture("codecontests/valid-00000-of-00001.jsonl", "codecontests");
    let echo = &problems[0];
    assert_eq!((echo.problem_id.as_str(), echo.split.as_str()), ("codecontests/1_A. Echo", "dev"));
    let test = |text: &str| format!(r#"{{"stdin": "{text}\n", "stdout": "{text}\n"}}"#);
    assert_eq!(echo.tests, ["a", "b c", "d"].map(test), "each once");
    assert_eq!(as_python(&echo.reference, echo), "...");
    assert_eq!((problems[1].tests.len(), problems[1].reference.as_str()), (1, ""));
    assert_eq!(
        skipped,
        [
            "codecontests/2_B. File problem 1 has an `input_file`, so that it is not on standard input and output",
            "codecontests/3_C. Twice reference 1 no solution is Python 3"
        ]
    );
}

#[test]
fn code_contests_in_parquet_has_lists_in_structures() {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let list = |values: ArrayRef| -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([values.len()]), values, None))
    };
    let object = |parts: Vec<(&str, ArrayRef)>| -> ArrayRef {
        let part = |(name, list): (&str, ArrayRef)| (Arc::new(Field::new(name, list.data_type().clone(), true)), list);
        Arc::new(StructArray::from(parts.into_iter().map(part).collect::<Vec<_>>()))
    };
    let tests = |name: &str| object(vec![("input", list(text(name))), ("output", list(text(name)))]);
    let languages: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![3]));
    let columns = vec![
        ("name", text("1_A")),
        ("description", text("Echo.")),
        ("public_tests", tests("a")),
        ("private_tests", tests("b")),
        ("generated_tests", tests("a")),
        ("solutions", object(vec![("language", list(languages)), ("solution", list(text("print(input())")))])),
        ("input_file", text("")),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    assert!(matches!(fields[2].data_type(), DataType::Struct(_)));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("test.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let json = serde_json::json!({"source": "test.parquet", "layout": "codecontests", "tolerance": 1e-6});
    let problems = import(folder.path(), json).unwrap();
    assert_eq!(
        problems[0].tests,
        [r#"{"stdin": "a", "stdout": "a", "tolerance": 1e-6}"#, r#"{"stdin": "b", "stdout": "b", "tolerance": 1e-6}"#]
    );
    assert_eq!(problems[0].reference, "print(input())\n");
}

#[test]
fn a_broken_row_of_a_contest_is_named_with_file_row_and_field() {
    let row = |layout: &str, change: serde_json::Value| {
        let mut row = match layout {
            "livecodebench" => serde_json::json!({"question_id": "1", "question_content": "q"}),
            "apps" => serde_json::json!({"id": 1, "question": "q", "solutions": "", "input_output": "{}"}),
            _ => serde_json::json!({"name": "n", "description": "d"}),
        };
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        row.to_string()
    };
    // `zlib.compress(pickle.dumps(print))` in base64: a program for Python, not a text.
    let program = "eJxrYJkqxgABPRxJpZk5JZl5xVN6WAuKMvNKpkyeogcAjFMKaQ==";
    let cases = [
        ("livecodebench", serde_json::json!({"question_id": null}), "field `question_id`: is not a text"),
        (
            "livecodebench",
            serde_json::json!({"public_test_cases": "[{}]"}),
            "field `public_test_cases`: is no JSON list",
        ),
        ("livecodebench", serde_json::json!({"private_test_cases": "!"}), "is neither JSON nor base64"),
        ("livecodebench", serde_json::json!({"private_test_cases": "AAAA"}), "is not zlib data"),
        ("livecodebench", serde_json::json!({"private_test_cases": program}), "which is not run"),
        (
            "livecodebench",
            serde_json::json!({"public_test_cases": "[{\"input\": \"1\", \"output\": \"1\", \"testtype\": \"functional\"}]"}),
            "field `metadata`: has no `func_name`",
        ),
        (
            "livecodebench",
            serde_json::json!({
                "metadata": "{\"func_name\": \"f\"}",
                "public_test_cases": "[{\"input\": \"x\", \"output\": \"1\", \"testtype\": \"functional\"}]"
            }),
            "test 1 is not lines of JSON",
        ),
        ("apps", serde_json::json!({"input_output": "{"}), "field `input_output`: is not JSON"),
        ("apps", serde_json::json!({}), "field `input_output`: `inputs` is not a list of texts"),
        (
            "apps",
            serde_json::json!({"input_output": "{\"inputs\": [\"1\"], \"outputs\": []}"}),
            "has 1 inputs, but 0 outputs",
        ),
        (
            "apps",
            serde_json::json!({"input_output": "{\"fn_name\": \"f\", \"inputs\": [1], \"outputs\": [1]}"}),
            "`inputs` is not a list of lists of arguments",
        ),
        ("apps", serde_json::json!({"solutions": "x"}), "field `solutions`: is no JSON list of texts"),
        ("codecontests", serde_json::json!({"description": null, "name": 1}), "field `description`"),
        (
            "codecontests",
            serde_json::json!({"public_tests": {"input": ["1"]}}),
            "field `public_tests`: has no list `output`",
        ),
    ];
    for (layout, change, expected) in cases {
        let folder = folder_with("rows.jsonl", &row(layout, change));
        let error = import(folder.path(), serde_json::json!({"source": "rows.jsonl", "layout": layout})).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("rows.jsonl`, row 1, field `") && error.contains(expected), "{expected}: {error}");
    }
}
