//! Tests that come as modules: ClassEval's, pytest's, QuixBugs' programs on graphs. And templates.

use super::*;

fn own_modules() -> (Vec<ProblemRow>, Vec<String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    let fields = serde_json::json!({"problem_id": "id", "instruction": "question", "reference": "solution", "tests": "test", "buggy": "wrong"});
    import_and_skip(&folder, serde_json::json!({"source": "modules.jsonl", "fields": fields})).unwrap()
}

#[test]
fn class_eval_has_a_test_per_class_of_unittest() {
    let (problems, skipped) = fixture("classeval.json", "classeval");
    let [counter] = problems.as_slice() else { panic!("one row") };
    assert_eq!((counter.problem_id.as_str(), counter.entry_point.as_str()), ("ClassEval_ours_0", "Counter"));
    let starts: Vec<&str> = counter.tests.iter().filter_map(|test| test.lines().next()).collect();
    assert_eq!(starts, ["class CounterTestTell(unittest.TestCase):", "class CounterTest(unittest.TestCase):"]);
    assert_eq!(counter.setup, "import datetime\nimport unittest");
    assert!(counter.reference.starts_with("import datetime\n\nclass Counter:"), "{}", counter.reference);
    assert_eq!(as_python(&counter.reference, counter), "..");
    assert_eq!(as_python(&counter.reference.replace("+ 1", "+ 2"), counter), "F.");
    assert_eq!(skipped, Vec::<String>::new());
}

#[test]
fn functions_and_classes_of_pytest_become_a_test_per_call() {
    let (problems, skipped) = own_modules();
    let stack = &problems[0];
    assert_eq!(stack.tests[0], "def test_add():\n    assert add(1, 2) == 3\ntest_add()\n");
    let calls: Vec<&str> = stack.tests.iter().filter_map(|test| test.lines().last()).collect();
    assert_eq!(
        calls,
        [
            "test_add()",
            "test_order(scale=1, a=1, b=2)",
            "test_order(scale=-1, a=1, b=2)",
            "test_order(scale=1, a=LIMIT, b=0)",
            "test_order(scale=-1, a=LIMIT, b=0)",
            "test_limit()",
            "case.test_pop()",
            "case.test_push(n=1)",
            "case.test_push(n=2)"
        ]
    );
    assert!(stack.setup.starts_with("import math\ndef made(n):"), "{}", stack.setup);
    assert_eq!(as_python(&stack.reference, stack), ".........");
    assert_eq!(as_python(&stack.buggy, stack), ".....FFFF");
    assert_eq!(
        skipped,
        ["stack test 1 `test_full` takes the fixture `full`", "stack test 1 `test_slow` is marked `pytest.mark.skip`"]
    );
}

#[test]
fn bare_asserts_are_a_test_each_with_what_stands_before_them() {
    let (problems, _) = own_modules();
    assert_eq!(problems[1].tests, ["xs = [1, 2]\nassert double(xs[0]) == 2\n", "assert double(3) == 6\n"]);
    assert_eq!(as_python(&problems[1].buggy, &problems[1]), "FF");
}

#[test]
fn a_test_has_all_that_it_uses_of_the_module_and_nothing_else() {
    let (problems, _) = own_modules();
    let later = &problems[2];
    let lines: Vec<&str> = later.tests[0].lines().collect();
    assert_eq!(lines[0], "FACTOR = 2");
    assert_eq!(
        lines[lines.len() - 4..],
        ["LAST = 3", "def test_wider():", "    assert scaled(LAST) == LAST * Wider.factor", "test_wider()"]
    );
    assert!(!later.tests[0].contains("UNUSED"), "{}", later.tests[0]);
    assert_eq!((as_python(&later.reference, later).as_str(), as_python(&later.buggy, later).as_str()), (".", "F"));
}

#[test]
fn quix_bugs_programs_on_graphs_have_the_tests_of_their_module() {
    let (problems, _) = fixture("quixbugs", "quixbugs");
    let reach = &problems[1];
    assert_eq!(reach.problem_id, "quixbugs/reach");
    assert!(reach.setup.starts_with("class Node:\n"), "{}", reach.setup);
    assert!(reach.instruction.starts_with("Reachability"), "{}", reach.instruction);
    assert!(reach.tests[0].starts_with("end = Node(\"end\")\nstart = "), "{}", reach.tests[0]);
    assert!(reach.tests[0].ends_with("\ntest1()\n"), "{}", reach.tests[0]);
    // What the second test does to the nodes, the third does not see.
    assert_eq!((as_python(&reach.reference, reach).as_str(), as_python(&reach.buggy, reach).as_str()), ("...", "F.."));
}

#[test]
fn a_template_makes_tests_of_fields() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    let fields = serde_json::json!({
        "problem_id": "cruxeval/{id}", "instruction": "What does `f` return?\n\n{code}", "reference": "code",
        "tests": ["assert f({input}) == {output}"], "split": ["test"]
    });
    let problems = import(&folder, serde_json::json!({"source": "cruxeval.jsonl", "fields": fields})).unwrap();
    assert_eq!((problems[0].problem_id.as_str(), problems[0].entry_point.as_str()), ("cruxeval/sample_0", "f"));
    assert_eq!(
        (problems[0].tests.as_slice(), problems[0].split.as_str()),
        (&["assert f(1, 'a') == [1, 'a']".to_owned()][..], "test")
    );
    assert_eq!(problems[1].tests, ["assert f({'a': 1}) == 1"]);
    assert_eq!(problems[1].instruction, "What does `f` return?\n\ndef f(d):\n    return len(d)\n");
}

#[test]
fn a_template_with_an_unknown_field_names_row_field_and_neighbour() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/dataset/fixtures");
    let fields = serde_json::json!({
        "problem_id": "id", "instruction": "code", "reference": "code", "tests": ["assert f({inputs}) == {output}"]
    });
    let error = import(&folder, serde_json::json!({"source": "cruxeval.jsonl", "fields": fields})).unwrap_err();
    let expected = "cruxeval.jsonl`, row 1, field `inputs`: is missing, did you mean `input`?; the row has ";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn templates_that_can_not_be_filled_are_refused_before_anything_runs() {
    for (fields, expected) in [
        (serde_json::json!({"tests": ["assert f({input"]}), "the brace at character 10 has no partner"),
        (serde_json::json!({"setup": ["{a}", "{b}"]}), "`setup` is one text"),
        (serde_json::json!({"tests": []}), "`tests` has no template"),
    ] {
        let params: Params =
            serde_json::from_value(serde_json::json!({"source": "x.jsonl", "fields": fields})).unwrap();
        let error = params.validate().unwrap_err();
        assert!(error.param == "fields" && error.message.contains(expected), "{error:?}");
    }
}

#[test]
fn a_broken_module_is_named_with_file_row_and_field() {
    let module = |test: &str| {
        serde_json::json!({"problem_id": 1, "instruction": "i", "reference": "def f(): pass", "tests": test})
            .to_string()
    };
    for (test, expected) in [
        ("def test_f(:\n", "field `tests`: invalid syntax"),
        ("import f\n", "field `tests`: holds no test"),
        ("def test_f(tmp_path):\n    assert f()\n", "gives no test at all: `test_f` takes the fixture `tmp_path`"),
        ("def setup_module():\n    pass\n\ndef test_f():\n    assert f()\n", "the module has `setup_module`"),
    ] {
        let folder = folder_with("rows.jsonl", &module(test));
        let error = import(folder.path(), serde_json::json!({"source": "rows.jsonl"})).unwrap_err().to_string();
        assert!(error.contains("rows.jsonl`, row 1, field `tests`") && error.contains(expected), "{error}");
    }
    let class_eval =
        r#"{"task_id": "c", "skeleton": "class A:", "solution_code": "class A: pass", "test": "", "test_classes": []}"#;
    let folder = folder_with("rows.jsonl", class_eval);
    let error = import(folder.path(), serde_json::json!({"source": "rows.jsonl", "layout": "classeval"}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 1, field `import_statement`"), "{error}");
}
