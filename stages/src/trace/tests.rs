use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use super::*;
use crate::verify::tests::sandbox;

fn row(buggy: &str, tests: &[&str]) -> ProgramRow {
    ProgramRow {
        reference: String::new(),
        buggy: Some(buggy.to_owned()),
        tests: tests.iter().map(|&test| test.to_owned()).collect(),
        setup: String::new(),
    }
}

/// Nothing where there is no Python.
fn traces(params: &Params, rows: &[ProgramRow]) -> Vec<TraceRow> {
    let Some(sandbox) = sandbox() else { return Vec::new() };
    trace(sandbox, params, &rows.iter().collect::<Vec<_>>(), &|| false, &|_| {}).expect("the sandbox works")
}

/// A golden file is a traced program under a head of `# test:`, `# got:` and `# status:`; what was traced is the same
/// without the trace.
#[test]
fn traces_are_as_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/trace/golden");
    let mut files: Vec<PathBuf> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|path| fs_err::read_to_string(path).unwrap()).collect();
    let heads_and_bodies: Vec<(Vec<&str>, String)> = texts
        .iter()
        .map(|text| {
            let mut parts: Vec<&str> = text.splitn(4, '\n').collect();
            let body = parts.pop().unwrap().to_owned();
            (parts, body)
        })
        .collect();
    let plain = |line: &str| line.rfind("  # (").map_or(line.to_owned(), |at| line[..at].to_owned());
    let rows: Vec<ProgramRow> = heads_and_bodies
        .iter()
        .map(|(head, body)| {
            let source: Vec<String> = body.split('\n').map(plain).collect();
            row(&source.join("\n"), &[head[0].strip_prefix("# test: ").unwrap()])
        })
        .collect();
    for ((path, text), traced) in files.iter().zip(&texts).zip(traces(&Params::default(), &rows)) {
        let found = format!(
            "# test: {}\n# got: {}\n# status: {}\n{}",
            traced.test, traced.got, traced.trace_status, traced.trace
        );
        assert!(found == *text, "{} differs:\n{found}", path.display());
    }
}

#[test]
fn the_first_failing_test_is_traced() {
    let tests = ["assert f(1) == 1", "assert f(-2) == 2", "assert f(-3) == 3"];
    for traced in traces(&Params::default(), &[row("def f(x):\n    return x\n", &tests)]) {
        assert_eq!((traced.test.as_str(), traced.got.as_str(), traced.steps), (tests[1], "-2", 2));
    }
}

#[test]
fn programs_that_can_not_be_traced_have_a_status() {
    let tests = &["assert f(1) == 2"];
    let cases = [
        ("def f(x): return 2\n", "no_failing_test", ""),
        ("def f(x: return 2\n", "invalid", ""),
        ("def f(x):\n    while True:\n        x += 1\n", "truncated", ""),
        ("def f(x): return f(x + 1)\n", "truncated", ""),
        ("def f(x):\n    return sum(range(10 ** 12))\n", "timeout", ""),
        ("import os\ndef f(x):\n    y = x\n    os._exit(0)\n", "crash", ""),
        ("def f(x):\n    raise SystemExit(0)\n", "crash", "SystemExit(0)"),
        ("def f(x):\n    y = [x] * 10 ** 10\n", "ok", "MemoryError()"),
        ("x = 1\ny = x / 0\n", "ok", "ZeroDivisionError('division by zero')"),
        ("import sys\nsys.settrace(None)\ndef f(x):\n    sys.settrace(None)\n    return x\n", "ok", "1"),
        ("def f(x):\n    for i in range(9):\n        print('x' * 10 ** 6)\n", "truncated", ""),
        (
            "class E(Exception):\n    def __repr__(self):\n        while True: pass\n    __str__ = __repr__\ndef f(x):\n    raise E('oh')\n",
            "ok",
            "E('oh')",
        ),
        (
            "class V:\n    def __init__(self): self.v = self\n    def __repr__(self): return self.v\n    def __eq__(self, o): 1 / 0\ndef f(x):\n    v = V()\n    return v\n",
            "ok",
            "V(v=<cycle>)",
        ),
    ];
    let rows: Vec<ProgramRow> = cases.iter().map(|(source, ..)| row(source, tests)).collect();
    let first = traces(&Params::default(), &rows);
    for ((source, status, got), traced) in cases.iter().zip(&first) {
        assert_eq!((traced.trace_status.as_str(), traced.got.as_str()), (*status, *got), "{source}{}", traced.trace);
    }
    assert_eq!(first, traces(&Params::default(), &rows));
}

#[test]
fn what_ran_before_a_crash_is_shown() {
    let rows = [row("import os\ndef f(x):\n    y = x + 1\n    os._exit(0)\n", &["assert f(1) == 2"])];
    for traced in traces(&Params::default(), &rows) {
        assert_eq!(traced.trace, "import os\ndef f(x):  # (0) x=1;\n    y = x + 1  # (1) y=2;\n    os._exit(0)\n");
    }
}

#[test]
fn an_error_while_loading_is_traced() {
    for traced in traces(&Params::default(), &[row("x = 1\ny = [x][x]\n", &["assert y == 2"])]) {
        let expected = "x = 1  # (0) x=1;\ny = [x][x]  # (1) __exception__=IndexError('list index out of range');\n";
        assert_eq!((traced.trace.as_str(), traced.test.as_str()), (expected, "assert y == 2"));
    }
}

#[test]
fn mbpp_traces_show_the_call_that_the_test_makes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mbpp.jsonl");
    let (Ok(text), Ok(python)) = (fs_err::read_to_string(path), Python::find()) else { return };
    let rows: Vec<ProgramRow> = text
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            ProgramRow {
                reference: text(&value["code"]).replace("\r\n", "\n"),
                buggy: None,
                tests: value["test_list"].as_array().unwrap().iter().map(text).collect(),
                setup: text(&value["test_setup_code"]),
            }
        })
        .collect();
    let params = Params { program: Program::Reference, budget_chars: 100_000, ..Params::default() };
    let traced = traces(&params, &rows);
    assert!(traced.iter().filter(|row| row.trace_status == "ok").count() > 900);
    let mut child = python
        .command()
        .args(["-c", include_str!("check.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = rows
        .iter()
        .zip(&traced)
        .map(|(row, traced)| {
            serde_json::json!({"source": row.reference, "trace": traced.trace, "test": traced.test,
                "got": traced.got, "steps": traced.steps})
            .to_string()
        })
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.join("\n").as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    // The other calls take sets, or values too long to be shown whole.
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "checked 974 rows, 956 calls");
}
